"""Paired comparisons of two models on one data set (McNemar) or several; Holm's correction."""

import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from modelsoups.stats.intervals import mean_over_sets, z_value

DRAWS = 100_000  # of the permutation test: p is at least 1e-5, and 0.05 +- 0.0007
Pair = tuple[Any, Any]  # correct_N of models a and b on one data set, as anything numpy can read


class Comparison(NamedTuple):
    """The difference of two models' scores (one - two), its 95% interval and two-sided p-value."""

    difference: float
    low: float
    high: float
    p: float


class McNemar(NamedTuple):
    """The result of McNemar's test: images that only a or only b gets right, two-sided p-value."""

    only_a: int
    only_b: int
    p: float


class MeanTest(NamedTuple):
    """A paired test of two models: accuracy of a minus b (-1 to 1), and the two-sided p-value."""

    difference: float
    p: float


def mcnemar_exact(a_correct_N: Any, b_correct_N: Any) -> McNemar:
    """Return the exact McNemar test of models a and b on one data set (Table 4).

    Null hypothesis: an image that only one model gets right is equally likely to be a's or b's.
    """
    only_a, only_b, _ = _discordant((a_correct_N, b_correct_N))
    if only_a + only_b == 0:
        return McNemar(0, 0, 1.0)
    from scipy.stats import binomtest  # takes a second to import

    p = float(binomtest(only_a, only_a + only_b).pvalue)
    return McNemar(only_a, only_b, max(p, sys.float_info.min))  # p is never zero


def paired_mean_test(pairs: Sequence[Pair], seed: int = 0, draws: int = DRAWS) -> MeanTest:
    """Return the paired permutation test of the two models' mean accuracy over data sets (Table 4).

    Under the null hypothesis the two models' predictions for an image may be swapped. Only images
    that exactly one model gets right matter: of n such images in a data set, those that the first
    model gets right are Binomial(n, 1/2). The observed data are one of the draws, so p is never
    zero. Raises ValueError if there are no data sets, or the models' numbers of images differ.
    """
    counts = [_discordant(pair) for pair in pairs]
    difference = mean_over_sets([(only_a - only_b) / n for only_a, only_b, n in counts])
    rng = np.random.default_rng(seed)
    drawn = np.zeros(draws)
    for only_a, only_b, n in counts:
        drawn += (2.0 * rng.binomial(only_a + only_b, 0.5, size=draws) - (only_a + only_b)) / n
    # The tolerance treats differences as equal if they differ only by the order of summation.
    as_far = int((np.abs(drawn / len(counts)) >= abs(difference) - 1e-12).sum())
    return MeanTest(difference, (1 + as_far) / (1 + draws))


def _discordant(pair: Pair) -> tuple[int, int, int]:
    """Return how many images only a gets right, how many only b gets right, and their total."""
    a_N, b_N = map(np.asarray, pair)
    if a_N.dtype != bool or b_N.dtype != bool:
        raise ValueError(f"correctness per image must be boolean, not {a_N.dtype} and {b_N.dtype}")
    if a_N.ndim != 1 or a_N.shape != b_N.shape or not len(a_N):
        expected = "(N,) twice, at least one image"
        raise ValueError(f"correctness: shapes {a_N.shape} and {b_N.shape}; expected {expected}")
    return int((a_N & ~b_N).sum()), int((b_N & ~a_N).sum()), len(a_N)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for their number by Holm's (1979) method, in the input's order.

    If those below 0.05 are rejected, the probability of any false rejection is at most 0.05.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def p_of_interval(value: float, low: float, high: float) -> float | None:
    """Return the two-sided p-value of "the quantity is zero" that fits its 95% interval.

    It assumes a normal distribution as wide as the interval between `value` and the end nearer to
    zero, so p < 0.05 exactly if zero is outside the interval.
    None if an input is not finite.
    """
    if not all(map(math.isfinite, (value, low, high))):
        return None
    side = value - low if value > 0 else high - value
    if side <= 0:  # an interval of width zero
        return sys.float_info.min if value else 1.0
    return max(float(2 * special.ndtr(-abs(value) / (side / z_value(0.95)))), sys.float_info.min)


def paired_mean_interval(pairs: Sequence[Pair], level: float = 0.95) -> tuple[float, float]:
    """Return the normal interval of the accuracy difference a - b, as a mean over data sets.

    Only images count as random, not data sets: variances of the differences per image (-1, 0, 1)
    add up, divided by the squared number of sets. ValueError if a set has only one image.
    """
    differences, variances = [], []
    for pair in pairs:
        only_a, only_b, n = _discordant(pair)
        if n < 2:
            raise ValueError(f"paired interval: a data set has {n} image; expected at least two")
        d = (only_a - only_b) / n
        differences.append(d)
        variances.append(((only_a + only_b) - n * d * d) / (n - 1) / n)
    mean = mean_over_sets(differences)
    half = z_value(level) * math.sqrt(sum(variances)) / len(variances)
    return mean - half, mean + half
