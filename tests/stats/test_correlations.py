"""Correlation and agreement of sign over pairs that share models."""

import itertools

import numpy as np
import pytest
from scipy.stats import pearsonr

from modelsoups.stats.correlations import correlation, correlation_gain, difference, mean, sign_agreement

PAIRS = list(itertools.combinations("abcdefgh", 2))


def test_correlation_by_hand() -> None:
    """x = 1, 2, 3, y = 1, 3, 2: covariance 1/3, variances 2/3: 1/2."""
    assert correlation([1, 2, 3], [1, 3, 2], [("a", "b"), ("c", "d"), ("e", "f")]).value == pytest.approx(0.5)


def test_correlation_is_that_of_scipy_and_lies_in_its_interval() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=len(PAIRS))
    y = x + rng.normal(size=len(PAIRS))
    found = correlation(x, y, PAIRS)
    assert found.value == pytest.approx(pearsonr(x, y).statistic)
    assert -1 <= found.low < found.value < found.high <= 1
    assert found == correlation(x, y, PAIRS)  # the same draws again
    assert found.n == 28


def test_pairs_that_share_models_tell_less_than_independent_ones() -> None:
    """y is driven by the models' own effects: drawing models must be wider than drawing points would be."""
    rng = np.random.default_rng(1)
    effect = dict(zip("abcdefgh", rng.normal(size=8), strict=True))
    y = [effect[a] + effect[b] for a, b in PAIRS]
    shared = mean(y, PAIRS)
    apart = mean(y, [(f"{i}x", f"{i}y") for i in range(len(PAIRS))])
    half = 1.96 * np.std(y) / np.sqrt(len(y))
    assert shared.value == apart.value == pytest.approx(np.mean(y))
    assert shared.high - shared.low > 1.5 * 2 * half
    assert shared.low < shared.value < shared.high


def test_agreement_by_hand() -> None:
    """Of (+,+), (-,-), (+,-), (0,+) the last does not count: 2 of 3."""
    found = sign_agreement([1, -1, 2, 0], [3, -2, -1, 1], PAIRS[:4])
    assert found.value == pytest.approx(2 / 3)
    assert found.n == 3


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [0, 0, 0])])
def test_what_has_no_correlation_is_refused(x: list[float], y: list[float]) -> None:
    with pytest.raises(ValueError, match="expected three or more"):
        correlation(x, y, PAIRS[: len(x)])


def test_lengths_must_be_equal() -> None:
    with pytest.raises(ValueError, match="3 values of x, 3 of y, 2 pairs"):
        mean([1, 2, 3], PAIRS[:2])
    with pytest.raises(ValueError, match="zero at every point"):
        sign_agreement([0, 0], [1, 1], PAIRS[:2])


def test_difference_by_hand() -> None:
    """3 and 5 inside, 1 and 1 outside: 4 - 1."""
    inside = [True, False, True, False]
    found = difference([3, 1, 5, 1], inside, [("a", "b"), ("c", "d"), ("e", "f"), ("g", "h")])
    assert found.value == 3
    assert 2 <= found.low <= 3 <= found.high <= 4
    with pytest.raises(ValueError, match="true for 0 of 4 points"):
        difference([3, 1, 5, 1], [False] * 4, PAIRS[:4])


def test_a_correlation_gains_nothing_over_itself_and_much_over_noise() -> None:
    rng = np.random.default_rng(2)
    y = rng.normal(size=len(PAIRS))
    near, noise = y + 0.1 * rng.normal(size=len(PAIRS)), rng.normal(size=len(PAIRS))
    assert correlation_gain(near, near, y, PAIRS)[:3] == (0, 0, 0)
    found = correlation_gain(near, noise, y, PAIRS)
    assert found.value == pytest.approx(correlation(near, y, PAIRS).value - correlation(noise, y, PAIRS).value)
    assert found.low > 0
