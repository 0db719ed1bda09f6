"""The plane of Figure 2, worked out by hand."""

import math

import pytest
import torch

from modelsoups.weights import state_dicts
from modelsoups.weights.planes import Plane, plane


def state(*values: float) -> dict[str, torch.Tensor]:
    """Four numbers over a matrix and a bias, and a buffer that does not count."""
    t = torch.tensor(values, dtype=torch.float64)
    return {"w": t[:2].reshape(1, 2).clone(), "bias": t[2:].clone(), "n": torch.tensor(3)}


def flat(s: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([s["w"].flatten(), s["bias"]])


START, ONE, TWO = state(1, 1, 1, 1), state(4, 1, 5, 1), state(1, 3, 4, 1)


def test_the_three_points_by_hand() -> None:
    """d1 = (3, 0, 4, 0), d2 = (0, 2, 3, 0): 25, 12, 13. theta_1 at (5, 0), theta_2 at (12/5, sqrt(13 - 144/25))."""
    found = plane(START, ONE, TWO)
    assert (found.d11, found.d12, found.d22) == (25, 12, 13)
    assert found.points[0] == (0, 0)
    assert found.points[1] == (5, 0)
    assert found.points[2] == pytest.approx((2.4, math.sqrt(7.24)))
    assert found.angle == pytest.approx(math.degrees(math.acos(12 / (5 * math.sqrt(13)))))


def test_the_basis_is_orthonormal_and_walks_to_the_three_models() -> None:
    found = plane(START, ONE, TWO)

    def at(x: float, y: float) -> torch.Tensor:
        return flat(state_dicts.mix([START, ONE, TWO], {"*": found.coefficients(x, y)}))

    u1, u2 = at(1, 0) - at(0, 0), at(0, 1) - at(0, 0)
    torch.testing.assert_close(u1, torch.tensor([0.6, 0, 0.8, 0], dtype=torch.float64))  # d1 / 5
    assert float(u2.norm()) == pytest.approx(1)
    assert float(u1 @ u2) == pytest.approx(0, abs=1e-12)
    for point, model in zip(found.points, (START, ONE, TWO), strict=True):
        torch.testing.assert_close(at(*point), flat(model))
    assert sum(found.coefficients(7.3, -2.1)) == pytest.approx(1)


def test_the_grid_surrounds_the_points() -> None:
    """x from 0 to 5 and y from 0 to 4, each with a margin of half its extent."""
    xs, ys = Plane(25, 0, 16).grid(5, margin=0.5)
    assert xs == pytest.approx([-2.5, 0, 2.5, 5, 7.5])
    assert ys == pytest.approx([-2, 0, 2, 4, 6])
    with pytest.raises(ValueError, match="1 points per side"):
        Plane(25, 0, 16).grid(1)


@pytest.mark.parametrize("two", [START, ONE, state(7, 1, 9, 1), state(-2, 1, -3, 1)])
def test_three_models_on_a_line_have_no_plane(two: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="are on a line"):
        plane(START, ONE, two)
