"""Equation (1) on pico pairs: its terms add up, and the finite differences agree with the exact derivative."""

import numpy as np
import pytest


def test_equation_1_is_told_for_inner_points_with_both_betas(rows_of):
    rows = rows_of("figure_K1")
    assert {r["alpha"] for r in rows} == {0.5}
    for r in rows:
        assert r["plain"]["value"] == pytest.approx((r["plain"]["variance"] - r["plain"]["curvature"]) / 8)
        assert r["plain"]["beta"] == 1
    checked = [r for r in rows if r["dataset"] == "test"]
    exact = [r["exact"] for r in checked]
    finite = [r["plain"]["curvature"] for r in checked]
    assert len(exact) > 2
    np.testing.assert_allclose(finite, exact, rtol=1e-4)
