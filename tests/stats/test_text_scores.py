"""The scores of texts against values worked out by hand, scikit-learn and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from modelsoups.stats.text_scores import DRAWS, score_of

KEYS = ("accuracy", "accuracy_f1", "matthews")
# TP 2, FN 1, FP 1, TN 1, where class 0 is the positive one
LABELS, PREDICTIONS = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 0, 1])


def made(seed, n=120, classes=2, right=0.7):
    """Labels, and the predictions of two models that are alike."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(classes, size=n)
    one_N = np.where(rng.random(n) < right, labels_N, rng.integers(classes, size=n))
    two_N = np.where(rng.random(n) < 0.8, one_N, rng.integers(classes, size=n))
    return labels_N, one_N, two_N


def test_the_scores_by_hand():
    expected = {"accuracy": 3 / 5, "accuracy_f1": (3 / 5 + 2 / 3) / 2, "matthews": (2 * 1 - 1 * 1) / 6}
    for key, value in expected.items():
        score = score_of(key, 2)
        outcomes_N = score.outcomes(PREDICTIONS, LABELS)
        assert outcomes_N.tolist() == [0, 0, 1, 2, 3]
        assert outcomes_N.dtype == np.int64
        assert score.score(outcomes_N) == pytest.approx(value)
        assert score.points(outcomes_N) == pytest.approx(5 * value)
        assert score.count_correct(outcomes_N) == (3 if key == "accuracy" else 0)
    assert [score_of(key, 2).name for key in KEYS] == ["accuracy", "mean of accuracy and F1", "Matthews correlation"]


def test_degenerate_predictions_have_a_score():
    """All predictions of one class, as uniform soups on CoLA: correlation 0, not NaN; F1 0 without class 0."""
    for predicted in (0, 1):
        for key, expected in (("matthews", 0.0), ("accuracy_f1", (0.6 + 0.75) / 2 if predicted == 0 else 0.2)):
            score = score_of(key, 2)
            outcomes_N = score.outcomes(np.full(5, predicted), LABELS)
            assert score.score(outcomes_N) == pytest.approx(expected)
            assert np.isfinite([*score.interval(outcomes_N), score.variance(outcomes_N)]).all()
    score = score_of("accuracy_f1", 2)
    assert score.score(score.outcomes([1, 1], [1, 1])) == 0.5


@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40), st.integers(2, 3))
def test_the_scores_equal_scikit_learns(pairs, classes):
    metrics = pytest.importorskip("sklearn.metrics")
    labels_N, predictions_N = np.array(pairs).T % classes
    found = {
        key: score_of(key, classes).score(score_of(key, classes).outcomes(predictions_N, labels_N)) for key in KEYS
    }
    accuracy = metrics.accuracy_score(labels_N, predictions_N)
    (f1,) = metrics.f1_score(labels_N, predictions_N, labels=[0], average=None, zero_division=0)
    assert found["accuracy"] == pytest.approx(accuracy, abs=1e-12)
    assert found["accuracy_f1"] == pytest.approx((accuracy + f1) / 2, abs=1e-12)
    assert found["matthews"] == pytest.approx(metrics.matthews_corrcoef(labels_N, predictions_N), abs=1e-9)


def test_wilson_and_mcnemar_are_used_for_an_accuracy_and_equal_scipys():
    labels_N, one_N, two_N = made(0)
    score = score_of("accuracy", 2)
    one, two = score.outcomes(one_N, labels_N), score.outcomes(two_N, labels_N)
    right = (one_N == labels_N).sum()
    expected = scipy_stats.binomtest(int(right), 120).proportion_ci(method="wilson")
    assert score.interval(one) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert score.variance(one) == pytest.approx(right / 120 * (1 - right / 120) / 120)
    only_one = int(((one_N == labels_N) & (two_N != labels_N)).sum())
    only_two = int(((one_N != labels_N) & (two_N == labels_N)).sum())
    found = score.compare(one, two)
    assert found.p == pytest.approx(scipy_stats.binomtest(only_one, only_one + only_two).pvalue)
    assert found.difference == pytest.approx((only_one - only_two) / 120)
    assert found.low < found.difference < found.high


@pytest.mark.parametrize("key", ["accuracy_f1", "matthews"])
def test_bootstrap_intervals_equal_scipys(key):
    """Both are random, so to two standard errors of a quantile or a bit more."""
    labels_N, one_N, two_N = made(1)
    score = score_of(key, 2)
    one, two = score.outcomes(one_N, labels_N), score.outcomes(two_N, labels_N)
    options = {"paired": True, "vectorized": False, "n_resamples": 2000, "method": "percentile", "rng": 0}
    theirs = scipy_stats.bootstrap((one,), score.score, **options)
    assert score.interval(one) == pytest.approx(tuple(theirs.confidence_interval), abs=0.01)
    assert score.variance(one) ** 0.5 == pytest.approx(theirs.standard_error, rel=0.08)
    theirs = scipy_stats.bootstrap((one, two), lambda a, b: score.score(a) - score.score(b), **options)
    found = score.compare(one, two)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.012)
    draws = theirs.bootstrap_distribution
    assert found.p == pytest.approx(2 * min((draws <= 0).mean(), (draws >= 0).mean()), abs=0.05)
    assert found.difference == pytest.approx(score.score(one) - score.score(two))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("classes", [2, 3])
def test_comparisons_are_antisymmetric_and_repeat(key, classes):
    labels_N, one_N, two_N = made(2, classes=classes)
    score = score_of(key, classes)
    one, two = score.outcomes(one_N, labels_N), score.outcomes(two_N, labels_N)
    there, back = score.compare(one, two), score.compare(two, one)
    assert there == score.compare(one, two)
    assert there.difference == -back.difference
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=0.02)
    assert there.p == pytest.approx(back.p, abs=0.05)
    same = score.compare(one, one)
    assert (same.difference, same.p) == (0.0, 1.0)
    mean = score.compare_means([(one, two), (one, one)])
    assert mean.difference == pytest.approx(there.difference / 2)
    assert mean.low <= mean.difference <= mean.high


@pytest.mark.parametrize("key", ["accuracy_f1", "matthews"])
def test_a_clear_difference_is_significant_and_its_p_is_never_zero(key):
    labels_N = np.arange(200) % 2
    score = score_of(key, 2)
    good, bad = score.outcomes(labels_N, labels_N), score.outcomes(np.roll(labels_N, 1), labels_N)
    found = score.compare(good, bad)
    assert found.low > 0
    assert found.p == pytest.approx(2 / (DRAWS + 1))
    assert score.interval(good) == (1.0, 1.0)
    assert score.variance(good) == 0.0


def test_bad_input_is_refused():
    score = score_of("matthews", 2)
    with pytest.raises(ValueError, match="score=f1: expected one of accuracy, accuracy_f1, matthews"):
        score_of("f1", 2)
    with pytest.raises(ValueError, match="at least two classes, not 1"):
        score_of("accuracy", 1)
    with pytest.raises(ValueError, match="labels from 0 to 2: expected 0 to 1"):
        score.outcomes([0, 1], [0, 2])
    with pytest.raises(ValueError, match=r"shape \(2,\), but labels of \(3,\)"):
        score.outcomes([0, 1], [0, 1, 1])
    none = np.array([], np.int64)
    for refused in (score.score, score.interval, score_of("accuracy", 2).score):
        with pytest.raises(ValueError, match="there are no examples"):
            refused(none)
    with pytest.raises(ValueError, match="not of the same examples"):
        score.compare(score.outcomes([0, 1], [0, 1]), score.outcomes([0, 1], [1, 1]))
