"""Confidence intervals of accuracies and of their means: Wilson, normal, bootstrap.

Legend: N images of a data set, D data sets, M models.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import special


def wilson(correct: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's (1927) score interval for the fraction correct / n."""
    # scipy's binomtest(...).proportion_ci differs in the last digit and takes nine times as long.
    if not (n >= 1 and 0 <= correct <= n):
        raise ValueError(f"{correct} correct of {n} images: expected 0 <= correct <= n and n at least 1")
    z = z_value(level)
    share, spread = correct / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    # Exact ends: 0 if correct is 0, and 1 if correct is n. Rounding may miss them by 1e-16.
    return centre - half, 1.0 if correct == n else centre + half


def z_value(level: float) -> float:
    """Return how many standard deviations a normal interval extends to each side (0.95: 1.96)."""
    if not 0 < level < 1:
        raise ValueError(f"confidence level={level}: expected a number between 0 and 1")
    return float(special.ndtri((1 + level) / 2))  # as norm.ppf of scipy.stats, which takes a second to import


def mean_over_sets(values: Sequence[float]) -> float:
    if not values:
        raise ValueError("mean over data sets: there are no data sets")
    return math.fsum(values) / len(values)


def mean_interval(differences: Sequence[Any], level: float = 0.95) -> tuple[float, float, float]:
    """Return the mean over data sets of each set's mean difference, and the ends of its interval.

    differences: for each set, one number per image, such as a - b averaged over pairs of models.
    The interval is normal; only images count as random. ValueError if a set has fewer than two.
    """
    means, variances = [], []
    for differences_N in differences:
        d_N = np.asarray(differences_N, float)
        if len(d_N) < 2:
            raise ValueError(f"an interval needs at least two images, not {len(d_N)}, in each data set")
        means.append(float(d_N.mean()))
        variances.append(float(d_N.var(ddof=1)) / len(d_N))
    value = mean_over_sets(means)
    half = z_value(level) * math.sqrt(sum(variances)) / len(variances)
    return value, value - half, value + half


def bootstrap(
    sets: Sequence[Any], statistic: Callable[[Sequence[np.ndarray[Any, Any]]], float], draws: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Return a statistic of accuracies, and the ends of its 95% percentile interval over images.

    sets: an array (models, images) for each data set, 1 where correct. statistic: gets a list with
    an array of accuracies (models,) for each set. Images are resampled, the same for all models.
    """
    rng = np.random.default_rng(seed)
    correct = [np.asarray(c_MN, float) for c_MN in sets]
    value = statistic([c_MN.mean(axis=1) for c_MN in correct])
    drawn = []  # for each set: accuracies by draw and model
    for correct_MN in correct:
        n = correct_MN.shape[1]
        counts = rng.multinomial(n, [1 / n] * n, size=draws)
        drawn.append(counts @ correct_MN.T / n)
    values = list(map(statistic, zip(*drawn, strict=True)))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(value), float(low), float(high)


def resampled(
    outcomes_N: np.ndarray[Any, Any], score: Callable[[Any], float], draws: int = 1000
) -> np.ndarray[Any, Any]:
    """Return a score of examples drawn with replacement from `outcomes_N`, for each draw."""
    rng, n = np.random.default_rng(0), len(outcomes_N)
    if not n:
        raise ValueError("an interval needs at least one example")
    return np.array([score(outcomes_N[rng.integers(n, size=n)]) for _ in range(draws)])
