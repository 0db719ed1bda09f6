"""Paired comparisons of two models: exact McNemar, and the mean of differences over several data sets."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats as scipy_stats

from modelsoups.stats.intervals import mean_over_sets, z_value

DRAWS = 100_000  # of the permutation test: p is at least 1e-5, and near 0.05 off by 0.0007 (one standard error)
Pair = tuple[Any, Any]  # a_correct_N, b_correct_N: arrays, tensors or lists of booleans


class McNemar(NamedTuple):
    """Images that only a or only b gets right, and the two-sided p-value of no difference."""

    only_a: int
    only_b: int
    p: float


class MeanTest(NamedTuple):
    """Difference of accuracies, a - b (a share, -1 to 1), and the two-sided p-value of no difference."""

    difference: float
    p: float


def mcnemar_exact(a_correct_N: Any, b_correct_N: Any) -> McNemar:
    """Exact McNemar test (table 4): of the images that one model alone gets right, half should be a's."""
    a_N, b_N = _booleans(a_correct_N, b_correct_N)
    only_a, only_b = int((a_N & ~b_N).sum()), int((b_N & ~a_N).sum())
    if only_a + only_b == 0:
        return McNemar(0, 0, 1.0)
    p = float(scipy_stats.binomtest(only_a, only_a + only_b).pvalue)
    return McNemar(only_a, only_b, max(p, sys.float_info.min))  # far enough out it underflows; p is never zero


def paired_mean_test(pairs: Sequence[Pair], seed: int = 0, draws: int = DRAWS) -> MeanTest:
    """Paired permutation test for the difference of the unweighted mean of accuracies over D data sets (table 4).

    Under the null hypothesis the two models' answers to an image may be swapped. Only images that one of them alone
    gets right matter: with n of those in a data set, a's share of them is Binomial(n, 1/2). The p-value counts the
    observed swap among the drawn ones, so it is never zero, and equals any other call with the same seed.
    """
    counts = [_discordant(pair) for pair in pairs]
    difference = mean_over_sets([(only_a - only_b) / n for only_a, only_b, n in counts])
    rng = np.random.default_rng(seed)
    drawn = np.zeros(draws)
    for only_a, only_b, n in counts:
        drawn += (2.0 * rng.binomial(only_a + only_b, 0.5, size=draws) - (only_a + only_b)) / n
    # The tolerance keeps equal differences equal after sums in another order.
    as_far = int((np.abs(drawn / len(counts)) >= abs(difference) - 1e-12).sum())
    return MeanTest(difference, (1 + as_far) / (1 + draws))


def _discordant(pair: Pair) -> tuple[int, int, int]:
    """Images that only a gets right, only b, and all."""
    a_N, b_N = _booleans(*pair)
    return int((a_N & ~b_N).sum()), int((b_N & ~a_N).sum()), len(a_N)


def _booleans(a: Any, b: Any) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], np.ndarray[Any, np.dtype[np.bool_]]]:
    a_N, b_N = np.asarray(a), np.asarray(b)
    if a_N.dtype != bool or b_N.dtype != bool:
        raise ValueError(f"correctness must be boolean, not {a_N.dtype} and {b_N.dtype}")
    if a_N.ndim != 1 or a_N.shape != b_N.shape or not len(a_N):
        raise ValueError(f"correctness of shapes {a_N.shape} and {b_N.shape}: expected the same images, at least one")
    return a_N, b_N


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values, in the order given: rejecting where they are below 0.05, the chance that any

    true hypothesis of them all is rejected is below 0.05, however they depend on each other.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def p_of_interval(value: float, low: float, high: float) -> float | None:
    """Two-sided p-value of zero that goes with a 95% interval, by the normal law of its side towards zero; below 0.05

    exactly where the interval leaves zero out. None where there is no interval.
    """
    if not all(map(math.isfinite, (value, low, high))):
        return None
    side = value - low if value > 0 else high - value
    if side <= 0:  # a quantity that does not vary
        return sys.float_info.min if value else 1.0
    return max(float(2 * scipy_stats.norm.sf(abs(value) / (side / z_value(0.95)))), sys.float_info.min)


def paired_mean_interval(pairs: Sequence[Pair], level: float = 0.95) -> tuple[float, float]:
    """Normal interval for that difference, from the variance of each data set's paired differences (-1, 0, 1).

    The variance is the sum of the sets' variances over D squared: sets are independent and fixed, images random.
    Two models that never differ get the interval (0, 0). Raises ValueError for a set of fewer than two images.
    """
    differences, variances = [], []
    for pair in pairs:
        only_a, only_b, n = _discordant(pair)
        if n < 2:
            raise ValueError(f"{n} image has no variance; expected at least two")
        d = (only_a - only_b) / n
        differences.append(d)
        variances.append(((only_a + only_b) - n * d * d) / (n - 1) / n)
    mean = mean_over_sets(differences)
    half = z_value(level) * math.sqrt(sum(variances)) / len(variances)
    return mean - half, mean + half
