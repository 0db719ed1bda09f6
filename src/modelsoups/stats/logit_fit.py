"""Effective robustness: accuracy under shift, beyond what accuracy in distribution predicts.

The logits of many models' accuracies in distribution and under shift lie near a line (Taori et al.
2020, section 3; Miller et al. 2021). It is fitted by least squares. A model's effective robustness is
its accuracy under shift minus the accuracy that the line predicts.

Legend: M models.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelsoups.stats.intervals import z_value

Estimate = tuple[float, float, float]  # a value, and the ends of its 95% interval


@dataclass(frozen=True)
class Place:
    """A model's accuracies (0 to 1) in distribution and under shift, and the numbers of images."""

    test: float
    shift: float
    test_images: int
    shift_images: int


def logit(share: float) -> float:
    """Return log(share / (1 - share)); ValueError unless 0 < share < 1."""
    if not 0 < share < 1:
        raise ValueError(f"logit of the accuracy {share}: expected a number between 0 and 1")
    return math.log(share / (1 - share))


def expit(x: float) -> float:
    """Return the accuracy whose logit is x."""
    return 1 / (1 + math.exp(-x))


@dataclass(frozen=True)
class LogitFit:
    """A line through the logits of M models' accuracies: shifted = intercept + slope * test.

    mean, squares: mean and sum of squared deviations of the logits in distribution. spread: standard
    deviation of the models around the line, in logits. explained: R squared, in logits.
    """

    slope: float
    intercept: float
    models: int
    mean: float
    squares: float
    spread: float
    explained: float

    @classmethod
    def of(cls, test_M: Sequence[float], shift_M: Sequence[float]) -> "LogitFit":
        """Fit the line; ValueError if there are fewer than three models or all have the same test accuracy."""
        if len(test_M) != len(shift_M) or len(test_M) < 3 or np.ptp(test_M) == 0:
            counts = f"{len(test_M)} accuracies in distribution, {len(shift_M)} under shift"
            raise ValueError(f"{counts}: a line needs three models or more, with different accuracies")
        x, y = (np.array(list(map(logit, shares))) for shares in (test_M, shift_M))
        dx, dy = x - x.mean(), y - y.mean()
        squares = float(dx @ dx)
        slope = float(dx @ dy) / squares
        rest = dy - slope * dx
        spread = math.sqrt(float(rest @ rest) / (len(x) - 2))
        explained = 1 - float(rest @ rest) / float(dy @ dy) if dy.any() else 1.0
        intercept = float(y.mean() - slope * x.mean())
        return cls(slope, intercept, len(x), float(x.mean()), squares, spread, explained)

    def predict(self, test: float) -> float:
        """Return the accuracy under shift that the line predicts from the accuracy in distribution."""
        return expit(self.intercept + self.slope * logit(test))

    def effective(self, place: Place) -> Estimate:
        """Return a model's effective robustness and its 95% interval.

        The interval is normal. Random are the images of both sets, and the line (from its M models).
        """
        return self._interval([(1, place)])

    def difference(self, a: Place, b: Place) -> Estimate:
        """Return the effective robustness of a minus that of b, and its 95% interval.

        It counts the images of a and of b as independent. If they are the same images, it is too wide.
        """
        return self._interval([(1, a), (-1, b)])

    def _interval(self, terms: Sequence[tuple[int, Place]]) -> Estimate:
        """Return the sum of sign times effective robustness over `terms`, and its interval."""
        value = variance = 0.0
        level = tilt = 0.0  # derivatives by the height of the line at `mean`, and by its slope
        for sign, place in terms:
            predicted = self.predict(place.test)
            value += sign * (place.shift - predicted)
            steep = predicted * (1 - predicted)  # derivative of the accuracy by its logit
            variance += place.shift * (1 - place.shift) / place.shift_images
            variance += (steep * self.slope) ** 2 / (place.test_images * place.test * (1 - place.test))
            level += sign * steep
            tilt += sign * steep * (logit(place.test) - self.mean)
        variance += self.spread**2 * (level**2 / self.models + tilt**2 / self.squares)
        half = z_value(0.95) * math.sqrt(variance)
        return value, value - half, value + half
