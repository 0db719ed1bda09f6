"""Correlation and sign agreement of two quantities over pairs of models, with bootstrap intervals.

A point is a pair of models with its x and y. Points that share a model are not independent, so the
bootstrap resamples models. A point's weight is the product of how often its models were drawn.

Legend: P points (pairs of models), D bootstrap samples.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DRAWS = 2000  # bootstrap samples of the models
Pairs = Sequence[tuple[str, str]]  # the two models of each point


class Estimate(NamedTuple):
    """A statistic's value, its 95% interval, and its number of points (pairs of models)."""

    value: float
    low: float
    high: float
    n: int


def correlation(x_P: Sequence[float], y_P: Sequence[float], models_P: Pairs) -> Estimate:
    """Return Pearson's correlation of x and y over points; models_P: names of each point's models.

    Raises ValueError if there are fewer than three points, or x or y is constant.
    """
    x, y = _same_length(x_P, y_P, models_P)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        raise ValueError(f"correlation of {len(x)} points: expected three or more, and x and y not constant")
    value = float(_weighted(x, y, np.ones((1, len(x))))[0])
    return _interval(value, _weighted(x, y, _draws(models_P)), len(x))


def sign_agreement(x_P: Sequence[float], y_P: Sequence[float], models_P: Pairs) -> Estimate:
    """Return the fraction of points where x and y have the same sign; zeros are left out."""
    x, y = _same_length(x_P, y_P, models_P)
    counted = (x != 0) & (y != 0)
    if not counted.any():
        raise ValueError("agreement in sign: x or y is zero at every point, so there is no sign to compare")
    agree = ((x > 0) == (y > 0))[counted].astype(float)
    return mean(agree, list(itertools.compress(models_P, counted)))


def mean(y_P: Sequence[float], models_P: Pairs) -> Estimate:
    """Return the mean of y over all points, with its bootstrap interval over models."""
    y, _ = _same_length(y_P, y_P, models_P)
    weights = _draws(models_P)
    with np.errstate(invalid="ignore"):
        draws = (weights @ y) / weights.sum(axis=1)
    return _interval(float(y.mean()), draws, len(y))


def difference(y_P: Sequence[float], inside_P: Sequence[bool], models_P: Pairs) -> Estimate:
    """Return the mean y where inside_P is true minus the mean elsewhere (neither may be empty)."""
    y, inside = _same_length(y_P, list(map(float, inside_P)), models_P)
    if not 0 < inside.sum() < len(y):
        raise ValueError(f"inside_P is true for {int(inside.sum())} of {len(y)} points; expected some, not all")
    weights = np.concatenate([np.ones((1, len(y))), _draws(models_P)])
    with np.errstate(invalid="ignore"):
        one, two = ((weights * part) @ y / (weights @ part) for part in (inside, 1 - inside))
    return _interval(float((one - two)[0]), (one - two)[1:], len(y))


def correlation_gain(x_P: Sequence[float], other_P: Sequence[float], y_P: Sequence[float], models_P: Pairs) -> Estimate:
    """Return corr(x, y) - corr(other, y) with an interval by the bootstrap over models."""
    correlation(x_P, y_P, models_P), correlation(other_P, y_P, models_P)  # or a ValueError
    weights = np.concatenate([np.ones((1, len(y_P))), _draws(models_P)])
    y = np.asarray(y_P, float)
    one, two = (_weighted(np.asarray(x, float), y, weights) for x in (x_P, other_P))
    return _interval(float((one - two)[0]), (one - two)[1:], len(y))


def _same_length(x_P: Sequence[float], y_P: Sequence[float], models_P: Pairs) -> tuple[np.ndarray, ...]:
    x, y = np.asarray(x_P, float), np.asarray(y_P, float)
    if not len(x) or not len(x) == len(y) == len(models_P):
        raise ValueError(f"{len(x)} values of x, {len(y)} of y, {len(models_P)} pairs: expected equal numbers above 0")
    return x, y


def _draws(models_P: Pairs, seed: int = 0) -> np.ndarray:
    """Return an array (D, P): the weight of each point in each bootstrap sample of the models."""
    names = sorted({name for pair in models_P for name in pair})
    place = {name: i for i, name in enumerate(names)}
    drawn = np.random.default_rng(seed).multinomial(len(names), [1 / len(names)] * len(names), size=DRAWS)
    one, two = ([place[pair[k]] for pair in models_P] for k in (0, 1))
    return (drawn[:, one] * drawn[:, two]).astype(float)


def _weighted(x: np.ndarray, y: np.ndarray, weights_DP: np.ndarray) -> np.ndarray:
    """Return the weighted correlation of x and y per bootstrap sample (NaN if one is constant)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        w = weights_DP / weights_DP.sum(axis=1, keepdims=True)
        mx, my = w @ x, w @ y
        xy, xx, yy = w @ (x * y) - mx * my, w @ (x * x) - mx**2, w @ (y * y) - my**2
        return xy / np.sqrt(np.where((xx > 1e-15) & (yy > 1e-15), xx * yy, np.nan))


def _interval(value: float, draws: np.ndarray, n: int) -> Estimate:
    kept = draws[np.isfinite(draws)]
    low, high = np.quantile(kept, [0.025, 0.975]) if len(kept) else (float("nan"), float("nan"))
    return Estimate(value, float(low), float(high), n)
