"""How tasks score: the defaults that a task of one's own inherits, images, and texts."""

import numpy as np
import pytest
import torch

from modelsoups.stats import intervals
from modelsoups.stats.text_scores import score_of
from modelsoups.tasks.images import ImageClassification
from modelsoups.tasks.task import Comparison, Task
from modelsoups.tasks.text_scoring import TextScoring


class Own(Task):
    """A task that has no more than the methods that every task must have; it never runs a model."""

    def unused(self, *arguments):
        raise AssertionError("not needed to score")

    build = example = train_batches = test_batches = inputs = logits = loss = chance_loss = unused
    project = points = outcomes = compare = compare_means = unused

    def score(self, outcomes_N):
        return float(outcomes_N.mean())


class Texts(Own, TextScoring):
    """Texts, with the methods of TextScoring in place of the unused ones."""

    points, outcomes, score = TextScoring.points, TextScoring.outcomes, TextScoring.score
    count_correct, interval, variance = TextScoring.count_correct, TextScoring.interval, TextScoring.variance
    compare, compare_means = TextScoring.compare, TextScoring.compare_means
    __init__ = TextScoring.__init__


def test_an_own_task_inherits_words_intervals_and_variance():
    task = Own()
    assert (task.score_name, task.unit) == ("accuracy", "examples")
    right_N = np.arange(50) < 40
    assert task.count_correct(right_N) == 40
    assert task.interval(right_N) == intervals.wilson(40, 50)
    assert task.variance(right_N) == 0.8 * (1 - 0.8) / 50
    errors_N = -np.random.default_rng(0).exponential(size=400)
    assert task.count_correct(errors_N) == 0
    low, high = task.interval(errors_N)
    half = 1.96 * errors_N.std() / 20
    assert (low, high) == pytest.approx((errors_N.mean() - half, errors_N.mean() + half), abs=0.02)
    assert task.variance(errors_N) == pytest.approx(errors_N.var() / 400, rel=0.15)
    assert task.interval(errors_N) == (low, high)
    with pytest.raises(ValueError, match="at least one example"):
        task.interval(np.array([]))


def test_images_are_scored_by_top_1_accuracy_with_wilsons_interval():
    task = ImageClassification(None, 1)
    logits_NC, labels_N = torch.eye(4)[[0, 1, 2, 3, 3]], torch.tensor([0, 1, 2, 3, 0])
    right_N = task.outcomes(logits_NC, labels_N)
    assert (task.score_name, task.unit) == ("top-1 accuracy", "images")
    assert (task.score(right_N), task.count_correct(right_N)) == (0.8, 4)
    assert task.interval(right_N) == intervals.wilson(4, 5)


@pytest.mark.parametrize("key", ["accuracy", "accuracy_f1", "matthews"])
def test_texts_are_scored_by_the_score_of_the_configuration(key):
    score = score_of(key, 2)
    task = Texts(score)
    assert (task.score_name, task.unit) == (score.name, "examples")
    logits_NC = torch.tensor([[-1.0, -2.0], [-3.0, -0.5], [-1.0, -1.0], [-2.0, -1.0]])
    labels_N = torch.tensor([0, 1, 1, 1])
    outcomes_N = task.outcomes(logits_NC, labels_N)
    assert outcomes_N.tolist() == [0, 3, 2, 3]  # equal logits: the first class
    assert outcomes_N.dtype == np.int64
    assert task.score(outcomes_N) == score.score(outcomes_N)
    assert task.points(logits_NC, labels_N) == pytest.approx(4 * task.score(outcomes_N))
    assert isinstance(task.points(logits_NC, labels_N), int) == (key == "accuracy")
    assert task.interval(outcomes_N) == score.interval(outcomes_N)
    assert task.variance(outcomes_N) == score.variance(outcomes_N)
    same = task.compare(outcomes_N, outcomes_N)
    assert isinstance(same, Comparison)
    assert (same.difference, same.p) == (0.0, 1.0)
    assert task.compare_means([(outcomes_N, outcomes_N)]).difference == 0.0
