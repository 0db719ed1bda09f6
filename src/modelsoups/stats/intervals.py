"""Intervals for accuracies and their means: Wilson, normal, bootstrap.

Legend: N images of a data set, D data sets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats as scipy_stats


def wilson(correct: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's (1927) score interval for a share of n images; ValueError unless 0 <= correct <= n and n >= 1."""
    if not (n >= 1 and 0 <= correct <= n):
        raise ValueError(f"{correct} correct of {n} images: expected 0 <= correct <= n and n at least 1")
    z = z_value(level)
    share, spread = correct / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    # At the ends the interval touches 0 or 1 exactly, which rounding would miss by 1e-17.
    return (0.0 if correct == 0 else centre - half), (1.0 if correct == n else centre + half)


def z_value(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level={level}: expected between 0 and 1")
    return float(scipy_stats.norm.ppf((1 + level) / 2))


def mean_over_sets(values: Sequence[float]) -> float:
    if not values:
        raise ValueError("no data sets to compare on")
    return math.fsum(values) / len(values)


def mean_interval(differences: Sequence[Any], level: float = 0.95) -> tuple[float, float, float]:
    """Unweighted mean over data sets of the mean over images, and its normal interval.

    differences holds a number an image for each set, such as a - b averaged over several pairs of models: sets and
    models are fixed, images random. Raises ValueError for a set of fewer than two images.
    """
    sets = [np.asarray(d_N, float) for d_N in differences]
    if short := [len(d_N) for d_N in sets if len(d_N) < 2]:
        raise ValueError(f"{short[0]} image has no variance; expected at least two")
    value = mean_over_sets([float(d_N.mean()) for d_N in sets])
    half = z_value(level) * math.sqrt(sum(float(d_N.var(ddof=1)) / len(d_N) for d_N in sets)) / len(sets)
    return value, value - half, value + half


def bootstrap(
    sets: Sequence[Any], statistic: Callable[[Sequence[np.ndarray[Any, Any]]], float], draws: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """A statistic of the accuracies of M models on D data sets, and its 95% percentile interval over images.

    sets holds correct_MN of each data set (models in one order throughout); statistic gets accuracies_M of each. The
    images of a set are drawn together for all models, sets apart from each other.
    """
    rng = np.random.default_rng(seed)
    correct = [np.asarray(c_MN, float) for c_MN in sets]
    value = statistic([c_MN.mean(axis=1) for c_MN in correct])
    counts = [rng.multinomial(c.shape[1], [1 / c.shape[1]] * c.shape[1], size=draws) for c in correct]
    drawn_DM = [w @ c_MN.T / c_MN.shape[1] for w, c_MN in zip(counts, correct, strict=True)]
    values = [statistic([d_DM[i] for d_DM in drawn_DM]) for i in range(draws)]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(value), float(low), float(high)
