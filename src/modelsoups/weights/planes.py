"""The plane in weight space through three models (Figure 2, J.1; Garipov et al. 2018).

Each point of the plane is a weighted sum of the three models, with coefficients that add up to 1.
Three inner products of theta_1 - theta_0 and theta_2 - theta_0 give the coefficients of a point.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from modelsoups.checkpoints.states import State
from modelsoups.weights.state_dicts import inner_products

Point = tuple[float, float]


@dataclass(frozen=True)
class Plane:
    """The plane theta_0 + x u1 + y u2; unit vector u1 points to theta_1, u2 is perpendicular to u1.

    d11, d12, d22: the inner products d1.d1, d1.d2 and d2.d2 of d1 = theta_1 - theta_0 and
    d2 = theta_2 - theta_0 over all float tensors. ValueError if the three models are on a line.
    """

    d11: float
    d12: float
    d22: float

    def __post_init__(self) -> None:
        if self.d11 <= 0 or self.d22 <= 0 or self.d11 * self.d22 - self.d12**2 <= 1e-9 * self.d11 * self.d22:
            raise ValueError("no plane: theta_0, theta_1 and theta_2 are on a line; choose other models")

    @property
    def length(self) -> float:
        """Return the Euclidean distance from theta_0 to theta_1 in weight space."""
        return math.sqrt(self.d11)

    @property
    def height(self) -> float:
        """Return the distance from theta_2 to the line through theta_0 and theta_1."""
        return math.sqrt(self.d22 - self.d12**2 / self.d11)

    @property
    def points(self) -> tuple[Point, Point, Point]:
        """Return the coordinates (x, y) of theta_0, theta_1 and theta_2 in the plane."""
        return (0.0, 0.0), (self.length, 0.0), (self.d12 / self.length, self.height)

    @property
    def angle(self) -> float:
        """Return the angle at theta_0 in degrees, over all tensors, unlike `state_dicts.angle`."""
        return math.degrees(math.acos(self.d12 / math.sqrt(self.d11 * self.d22)))

    def coefficients(self, x: float, y: float) -> tuple[float, float, float]:
        """Return the coefficients of the three models whose weighted sum is the point (x, y)."""
        two = y / self.height
        one = (x - two * self.d12 / self.length) / self.length
        return 1 - one - two, one, two

    def grid(self, side: int, margin: float = 0.3) -> tuple[list[float], list[float]]:
        """Return `side` equidistant values of x and of y that cover the models, plus a margin."""
        if side < 2:
            raise ValueError(f"a grid of {side} points per side; expected at least 2")
        x, y = (_spread(values, side, margin) for values in zip(*self.points, strict=True))
        return x, y


def plane(start: State, one: State, two: State) -> Plane:
    """Return the plane through three state dicts of equal layout; ValueError if on one line."""
    return Plane(*inner_products(start, one, two))


def _spread(values: Sequence[float], side: int, margin: float) -> list[float]:
    edge = margin * (max(values) - min(values))
    low, high = min(values) - edge, max(values) + edge
    return [low + (high - low) * i / (side - 1) for i in range(side)]
