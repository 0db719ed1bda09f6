"""Paired comparisons of two models on one data set (McNemar) or several; Holm's correction."""

import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats as scipy_stats

from modelsoups.stats.intervals import mean_over_sets, z_value

DRAWS = 100_000  # of the permutation test: p is at least 1e-5, its standard error 0.0007 at 0.05
Pair = tuple[Any, Any]  # correct_N of models a and b on one data set, in any form numpy reads


class McNemar(NamedTuple):
    """Images that only a or only b gets right, and the two-sided p-value of no difference."""

    only_a: int
    only_b: int
    p: float


class MeanTest(NamedTuple):
    """Difference of accuracies, a - b (-1 to 1), and the two-sided p-value of no difference."""

    difference: float
    p: float


def mcnemar_exact(a_correct_N: Any, b_correct_N: Any) -> McNemar:
    """Exact McNemar test on one data set (table 4).

    Under the null hypothesis half of the images that only one model gets right are model a's.
    """
    only_a, only_b, _ = _discordant((a_correct_N, b_correct_N))
    if only_a + only_b == 0:
        return McNemar(0, 0, 1.0)
    p = float(scipy_stats.binomtest(only_a, only_a + only_b).pvalue)
    return McNemar(only_a, only_b, max(p, sys.float_info.min))  # p is never zero


def paired_mean_test(pairs: Sequence[Pair], seed: int = 0, draws: int = DRAWS) -> MeanTest:
    """Paired permutation test of the difference of mean accuracies over data sets (table 4).

    Under the null hypothesis the two models' answers to an image may be swapped. Only images that
    one of them alone gets right matter: of n such images in a data set, model a's number is
    Binomial(n, 1/2). The p-value counts the observed answers as one of the draws, so it is never
    zero. Raises ValueError for no data sets, or correctness of different images.
    """
    counts = [_discordant(pair) for pair in pairs]
    difference = mean_over_sets([(only_a - only_b) / n for only_a, only_b, n in counts])
    rng = np.random.default_rng(seed)
    drawn = np.zeros(draws)
    for only_a, only_b, n in counts:
        drawn += (2.0 * rng.binomial(only_a + only_b, 0.5, size=draws) - (only_a + only_b)) / n
    # The tolerance treats differences as equal that differ only by the order of summation.
    as_far = int((np.abs(drawn / len(counts)) >= abs(difference) - 1e-12).sum())
    return MeanTest(difference, (1 + as_far) / (1 + draws))


def _discordant(pair: Pair) -> tuple[int, int, int]:
    """Number of images that only a gets right, that only b gets right, and of all images."""
    a_N, b_N = map(np.asarray, pair)
    if a_N.dtype != bool or b_N.dtype != bool:
        raise ValueError(f"correctness must be boolean, not {a_N.dtype} and {b_N.dtype}")
    if a_N.ndim != 1 or a_N.shape != b_N.shape or not len(a_N):
        raise ValueError(f"correctness of shapes {a_N.shape} and {b_N.shape}: expected the same images, at least one")
    return int((a_N & ~b_N).sum()), int((b_N & ~a_N).sum()), len(a_N)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values, in the order given.

    Rejecting those below 0.05 rejects any true hypothesis with a probability below 0.05.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def p_of_interval(value: float, low: float, high: float) -> float | None:
    """Two-sided p-value of zero that fits a 95% interval; None without an interval.

    The half of it towards zero is taken as normal, so p < 0.05 exactly if it excludes zero.
    """
    if not all(map(math.isfinite, (value, low, high))):
        return None
    side = value - low if value > 0 else high - value
    if side <= 0:  # a quantity that does not vary
        return sys.float_info.min if value else 1.0
    return max(float(2 * scipy_stats.norm.sf(abs(value) / (side / z_value(0.95)))), sys.float_info.min)


def paired_mean_interval(pairs: Sequence[Pair], level: float = 0.95) -> tuple[float, float]:
    """Normal interval of the difference that `paired_mean_test` tests.

    The variance is that of the paired differences (-1, 0, 1), summed over the data sets and divided
    by their number squared: sets are fixed, images random. ValueError for a set of one image.
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
