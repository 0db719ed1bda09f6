"""The scoring half of text classification: a task of texts inherits it and adds the model's half.

Shape letters: N examples of a data set, C classes (the options of the prompt).
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from modelsoups.stats.text_scores import TextScore
from modelsoups.tasks import UNITS
from modelsoups.tasks.task import Comparison, Task


class TextScoring(Task):
    """A task whose score is one of data.text.score. Outcomes: label * C + prediction, int64."""

    unit = UNITS["text"]

    def __init__(self, scoring: TextScore) -> None:
        """scoring: as `score_of(data.text.score, number of classes)` returns it."""
        self.scoring = scoring
        self.score_name = scoring.name

    def points(self, logits_NC: Tensor, labels_N: Tensor) -> float:
        """Return the score times N: for an accuracy, the number of correct examples."""
        return self.scoring.points(self.outcomes(logits_NC, labels_N))

    def outcomes(self, logits_NC: Tensor, labels_N: Tensor) -> np.ndarray:
        """Return label * C + prediction for each example; ties go to the first class."""
        return self.scoring.outcomes(logits_NC.argmax(dim=1).cpu().numpy(), labels_N.cpu().numpy())

    def score(self, outcomes_N: np.ndarray) -> float:
        """Return the score, such as 0.8; a Matthews correlation may be negative."""
        return self.scoring.score(outcomes_N)

    def count_correct(self, outcomes_N: np.ndarray) -> int:
        """Return the number of correct examples if the score is the accuracy, otherwise 0."""
        return self.scoring.count_correct(outcomes_N)

    def interval(self, outcomes_N: np.ndarray) -> tuple[float, float]:
        """Return Wilson's interval of an accuracy, or a bootstrap interval of another score."""
        return self.scoring.interval(outcomes_N)

    def variance(self, outcomes_N: np.ndarray) -> float:
        """Return the variance of the score; its root is the standard error."""
        return self.scoring.variance(outcomes_N)

    def compare(self, one_N: np.ndarray, two_N: np.ndarray) -> Comparison:
        """Compare two models by McNemar's exact test, or for other scores a paired bootstrap."""
        return self.scoring.compare(one_N, two_N)

    def compare_means(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Comparison:
        """Compare two models' mean scores over data sets by a permutation test or a bootstrap."""
        return self.scoring.compare_means(pairs)
