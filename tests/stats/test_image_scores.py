"""The scores of images other than accuracy: worked by hand, and as scikit-learn and WILDS define them."""

import numpy as np
import pytest

from modelsoups.stats import image_scores
from modelsoups.stats.image_scores import MacroF1, TopOne, WorstGroup, score_of


def outcomes(score, predictions, labels, groups=None):
    return score.outcomes(np.array(predictions), np.array(labels), None if groups is None else np.array(groups))


def test_macro_f1_by_hand():
    score = MacroF1()
    # class 0: 2 right of 3, predicted 2 times: F1 = 4/5; class 1: 1 right of 1, predicted 2 times: 2/3; class 3 has
    # no images, but its prediction is a mistake of class 0
    outcomes_N = outcomes(score, [0, 0, 3, 1, 1], [0, 0, 0, 1, 2])
    f1 = [4 / 5, 2 / 3, 0.0]
    assert score.score(outcomes_N) == pytest.approx(sum(f1) / 3)
    assert score.points(outcomes_N) == pytest.approx(5 * sum(f1) / 3)
    assert score.count_correct(outcomes_N) == 0
    assert score.score(outcomes(score, [7, 7], [1, 2])) == 0.0


def test_macro_f1_equals_scikit_learns_over_the_classes_that_occur():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for classes in (2, 5, 182):
        labels_N, predictions_N = rng.integers(0, classes, 300), rng.integers(0, classes, 300)
        found = MacroF1().score(MacroF1().outcomes(predictions_N, labels_N, None))
        expected = metrics.f1_score(labels_N, predictions_N, average="macro", labels=np.unique(labels_N))
        assert found == pytest.approx(expected)


def test_the_worst_group_by_hand():
    score = WorstGroup()
    outcomes_N = outcomes(score, [0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, -1])
    assert score.score(outcomes_N) == 0.5  # group 0; group 1 has 1, and "other" counts for none
    assert score.score(outcomes(score, [0, 1], [0, 0], [-1, -1])) == 0.5  # nothing but "other"
    assert score.score(outcomes(score, [1, 1], [0, 0], [2, -1])) == 0.0
    assert score.truth(outcomes_N).tolist() == [0, 0, 1, 1, -1]
    with pytest.raises(ValueError, match=r"data\.score=worst_group: this data set has no groups"):
        outcomes(score, [0], [0])


@pytest.mark.parametrize("score", [MacroF1(), WorstGroup()])
def test_intervals_hold_the_score_and_comparisons_see_a_difference(score):
    rng = np.random.default_rng(0)
    labels_N, groups_N = rng.integers(0, 4, 2000), rng.integers(0, 3, 2000)
    good, bad = (score.outcomes(np.where(rng.random(2000) < p, labels_N, 3), labels_N, groups_N) for p in (0.9, 0.7))
    low, high = score.interval(good)
    assert low < score.score(good) < high
    assert high - low < 0.08
    assert (low, high) == score.interval(good)
    assert score.variance(good) == pytest.approx(((high - low) / 3.92) ** 2, rel=0.3)
    better = score.compare(good, bad)
    assert better.difference == pytest.approx(score.score(good) - score.score(bad))
    assert 0 < better.low < better.difference < better.high
    assert better.p == pytest.approx(2 / 1001)
    same = score.compare_means([(good, good), (bad, bad)])
    assert (same.difference, same.p) == (0.0, 1.0)
    with pytest.raises(ValueError, match="not of the same examples"):
        score.compare(good, bad[::-1])
    with pytest.raises(ValueError, match="no examples"):
        score.score(good[:0])


def test_draws_in_small_blocks_give_the_same(monkeypatch):
    rng = np.random.default_rng(1)
    outcomes_N = MacroF1().outcomes(rng.integers(0, 9, 400), rng.integers(0, 9, 400), None)
    whole = MacroF1().interval(outcomes_N)
    monkeypatch.setattr("modelsoups.stats.counted_scores.BLOCK", 1000)
    assert MacroF1().interval(outcomes_N) == whole


def test_a_score_is_found_by_its_key():
    assert isinstance(score_of("accuracy"), TopOne)
    with pytest.raises(ValueError, match=r"data\.score=f1: expected one of accuracy, macro_f1, worst_group"):
        score_of("f1")
    assert set(image_scores.SCORES) == {"accuracy", "macro_f1", "worst_group"}
