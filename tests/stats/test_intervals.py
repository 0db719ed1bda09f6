"""Intervals and tests, by hand and against scipy and statsmodels."""

import math

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint
from test_paired_tests import pair

from modelsoups.stats.intervals import bootstrap, mean_interval, wilson
from modelsoups.stats.paired_tests import paired_mean_interval


def test_wilson_by_hand() -> None:
    """8 of 10, z = 1.959964, z^2 = 3.841459: centre (0.8 + 0.1920729) / 1.3841459 = 0.716740,

    half width sqrt(0.3841459 * (0.16 + 0.09603647)) / 1.3841459 = 0.226578.
    """
    assert wilson(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(("correct", "n"), [(0, 1), (1, 1), (0, 7), (3, 7), (7, 7), (4021, 5000), (26_000, 26_000)])
def test_wilson_is_that_of_statsmodels(correct: int, n: int, level: float) -> None:
    expected = proportion_confint(correct, n, alpha=1 - level, method="wilson")
    low, high = wilson(correct, n, level)
    assert (low, high) == pytest.approx(expected, abs=1e-12)
    assert 0 <= low <= correct / n <= high <= 1


def test_wilson_touches_both_ends_exactly() -> None:
    """For n = 5 and 14 among others the formula alone ends at 1 - 1e-16 or 1 + 1e-16."""
    assert all(wilson(0, n)[0] == 0 and wilson(n, n)[1] == 1 for n in range(1, 200))


@pytest.mark.parametrize(("correct", "n", "level"), [(0, 0, 0.95), (3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0), (1, 2, 0)])
def test_wilson_refuses(correct: int, n: int, level: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        wilson(correct, n, level)


def test_mean_interval_by_hand_and_as_for_pairs() -> None:
    """(1, 0, -1, 2): mean 0.5, variance 5/3, so 0.5 -+ 1.96 sqrt(5/12); two equal sets: that over sqrt 2."""
    half = 1.959964 * math.sqrt(5 / 12)
    assert mean_interval([[1, 0, -1, 2]]) == pytest.approx((0.5, 0.5 - half, 0.5 + half), abs=1e-6)
    assert mean_interval([[1, 0, -1, 2]] * 2)[2] == pytest.approx(0.5 + half / math.sqrt(2), abs=1e-6)
    pairs = [pair(10, 5, 1, 4), pair(3, 2, 6, 9)]
    differences = [a.astype(int) - b.astype(int) for a, b in pairs]
    assert mean_interval(differences)[1:] == pytest.approx(paired_mean_interval(pairs))
    with pytest.raises(ValueError, match="an interval needs at least two images, not 1"):
        mean_interval([[1]])


def test_bootstrap_of_a_mean_of_differences_is_its_normal_interval() -> None:
    """One model against another on two sets: the value exactly, the interval within a tenth of the normal one."""
    rng = np.random.default_rng(0)
    sets = [rng.random((2, n)) < np.array([[0.8], [0.7]]) for n in (400, 900)]
    found = bootstrap(sets, lambda a: float(np.mean([x[0] - x[1] for x in a])), draws=4000)
    expected = mean_interval([c[0].astype(float) - c[1] for c in sets])
    assert found[0] == pytest.approx(expected[0])
    assert found[1:] == pytest.approx(expected[1:], abs=0.1 * (expected[2] - expected[0]))


def test_bootstrap_draws_the_images_of_all_models_together() -> None:
    """A model is never ahead of itself, whichever images are drawn."""
    same = np.tile(np.arange(50) % 3 == 0, (2, 1))
    assert bootstrap([same], lambda a: float(a[0][0] - a[0][1]), draws=100) == (0, 0, 0)
