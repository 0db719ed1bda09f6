"""Paired tests of two models, by hand and against scipy and statsmodels."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from modelsoups.stats.paired_tests import holm, mcnemar_exact, p_of_interval, paired_mean_interval, paired_mean_test


def pair(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, only_a, only_b, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def test_mcnemar_by_hand() -> None:
    """Five against one: 2 * (C(6,0) + C(6,1)) / 2^6 = 14/64."""
    assert mcnemar_exact(*pair(10, 5, 1, 4)) == (5, 1, pytest.approx(14 / 64))
    assert mcnemar_exact(*pair(10, 3, 3, 4)) == (3, 3, 1.0)
    assert mcnemar_exact(*pair(10, 0, 0, 4)) == (0, 0, 1.0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 30))
def test_mcnemar_is_that_of_scipy_and_statsmodels(only_a: int, only_b: int, both: int) -> None:
    result = mcnemar_exact(*pair(both, only_a, only_b, 2))
    table = [[both, only_a], [only_b, 2]]
    assert result.p == pytest.approx(float(mcnemar(table, exact=True).pvalue), rel=1e-9)
    if only_a + only_b:
        assert result.p == pytest.approx(binomtest(only_a, only_a + only_b, 0.5).pvalue, rel=1e-9)
    assert mcnemar_exact(*pair(both, only_b, only_a, 2)).p == pytest.approx(result.p)


def test_mcnemar_takes_tensors_and_lists_and_p_is_never_zero() -> None:
    a, b = pair(1, 5, 1, 1)
    assert mcnemar_exact(torch.from_numpy(a), torch.from_numpy(b)) == mcnemar_exact(a.tolist(), b.tolist())
    assert mcnemar_exact(*pair(0, 5000, 0, 0)).p > 0  # 2^-4999 is below the smallest float


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([True], [True, False], "twice"),
        ([1, 0], [0, 1], "must be boolean"),
        (np.zeros(0, bool), np.zeros(0, bool), "at least one"),
        (np.zeros((2, 2), bool), np.zeros((2, 2), bool), "twice"),
    ],
)
def test_correctness_must_be_of_the_same_images(a: object, b: object, message: str) -> None:
    for call in (
        lambda: mcnemar_exact(a, b),
        lambda: paired_mean_test([(a, b)]),
        lambda: paired_mean_interval([(a, b)]),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def exact_p(sets: list[tuple[int, int, int]]) -> float:
    """Every swap of every discordant image; sets are (only_a, only_b, images)."""
    observed = abs(sum((a - b) / n for a, b, n in sets))
    signs = [[s / n for s in (1, -1)] for a, b, n in sets for _ in range(a + b)]
    sums = [abs(sum(swap)) for swap in itertools.product(*signs)]
    return sum(s >= observed - 1e-12 for s in sums) / len(sums)


def test_paired_mean_by_hand() -> None:
    """Two of two images only a's, one of four only b's: difference (2/2 - 1/4) / 2 = 3/8.

    Swapped, the first set gives +1, 0, 0, -1 and the second +-1/4: the sum is 3/4 or more away in 4 of 8 cases.
    """
    pairs = [pair(0, 2, 0, 0), pair(2, 0, 1, 1)]
    result = paired_mean_test(pairs, seed=0)
    assert result.difference == 0.375
    assert exact_p([(2, 0, 2), (0, 1, 4)]) == 0.5
    assert result.p == pytest.approx(0.5, abs=0.006)


@pytest.mark.parametrize(
    "sets", [[(5, 1, 20)], [(4, 1, 10), (2, 3, 30)], [(3, 0, 7), (1, 0, 9), (2, 2, 11)], [(1, 1, 5), (0, 0, 9)]]
)
def test_paired_mean_test_against_every_swap(sets: list[tuple[int, int, int]]) -> None:
    """At 100,000 draws one standard error is at most 0.0016."""
    pairs = [pair(n - a - b, a, b, 0) for a, b, n in sets]
    assert paired_mean_test(pairs, seed=1).p == pytest.approx(exact_p(sets), abs=0.006)


def test_one_data_set_is_mcnemar() -> None:
    one = pair(50, 22, 9, 10)
    assert paired_mean_test([one], seed=3).p == pytest.approx(mcnemar_exact(*one).p, abs=0.002)


def test_paired_mean_test_is_deterministic_signed_and_never_zero() -> None:
    far = [pair(0, 500, 0, 100), pair(0, 400, 0, 0)]
    assert paired_mean_test(far, seed=0).p == 1 / 100_001
    assert paired_mean_test([pair(5, 0, 0, 5)], seed=0) == (0.0, 1.0)
    some = [pair(5, 6, 2, 5), pair(50, 3, 2, 5)]
    assert paired_mean_test(some, seed=4) == paired_mean_test(some, seed=4)
    assert paired_mean_test(some, seed=4) != paired_mean_test(some, seed=5)
    swapped = paired_mean_test([(b, a) for a, b in some], seed=4)
    assert swapped.difference == -paired_mean_test(some, seed=4).difference


def test_the_mean_is_unweighted() -> None:
    """(1/1 + 0/999) / 2, not 1/1000."""
    assert paired_mean_test([pair(0, 1, 0, 0), pair(999, 0, 0, 0)], seed=0).difference == 0.5


def test_paired_mean_interval_by_hand() -> None:
    """Differences 1, 1, 0, -1: mean 1/4, sample variance 2.75 / 3, standard error sqrt(2.75 / 12) = 0.478714.

    With a second set of no differences both halve: 1/8 and 0.239357.
    """
    z = 1.959964
    one = pair(1, 2, 1, 0)
    assert paired_mean_interval([one]) == pytest.approx((0.25 - z * 0.478714, 0.25 + z * 0.478714), abs=1e-5)
    two = paired_mean_interval([one, pair(9, 0, 0, 1)])
    assert two == pytest.approx((0.125 - z * 0.239357, 0.125 + z * 0.239357), abs=1e-5)
    assert paired_mean_interval([pair(9, 0, 0, 1)]) == (0.0, 0.0)


def test_paired_mean_interval_covers() -> None:
    """Of 400 simulated comparisons about 95% of intervals hold the true difference 0.04 (standard error 1.1%)."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        pairs = []
        for n in (150, 300):
            kind = rng.choice(4, size=n, p=[0.6, 0.12, 0.08, 0.2])
            pairs.append(((kind == 0) | (kind == 1), (kind == 0) | (kind == 2)))
        low, high = paired_mean_interval(pairs)
        hits += low <= 0.04 <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_empty_comparisons_are_refused() -> None:
    for call in (paired_mean_test, paired_mean_interval):
        with pytest.raises(ValueError, match="no data sets"):
            call([])
    with pytest.raises(ValueError, match="at least two"):
        paired_mean_interval([pair(1, 0, 0, 0)])
    assert math.isfinite(paired_mean_test([pair(1, 0, 0, 0)]).p)


def test_holm_by_hand() -> None:
    """0.01 times 3; 0.02 times 2 = 0.04; 0.03 times 1, which is no less than the one before it: 0.04."""
    assert holm([0.02, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1], atol=1e-12)


def test_the_p_value_of_an_interval() -> None:
    """At its end an interval has 0.05; a value of twice the half width is 3.92 standard errors: p = 0.0000886."""
    assert p_of_interval(1.0, 0.0, 5.0) == pytest.approx(0.05)
    assert p_of_interval(-1.0, -9.0, 0.0) == pytest.approx(0.05)
    assert p_of_interval(2.0, 1.0, 3.0) == pytest.approx(8.86e-5, rel=1e-3)
    assert p_of_interval(0.0, -1.0, 1.0) == 1
    assert p_of_interval(0.0, 0.0, 0.0) == 1
    assert 0 < p_of_interval(0.2, 0.2, 0.2) < 1e-300
    assert p_of_interval(0.5, math.nan, math.nan) is None
