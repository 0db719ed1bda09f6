"""The scores of text classification, their bootstrap intervals, and paired comparisons of models.

An array `outcomes_N` has a number label * C + prediction for each of N examples, with C classes.
Class 0, the first option of the prompt, is the positive class of F1, as in GLUE's MRPC.
Suffixes of other names: D bootstrap draws, or tables of counts; K different outcomes that occur.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelsoups.stats import intervals, paired_tests
from modelsoups.stats.counted_scores import CountedScore, Pair
from modelsoups.stats.paired_tests import Comparison

DRAWS = 10_000  # of a bootstrap; its p-value is at least 2 / 10,001


def accuracy(tables_DCC: np.ndarray) -> np.ndarray:
    """Return the accuracy of tables of counts, by label and prediction."""
    right_D = np.trace(tables_DCC, axis1=-2, axis2=-1)
    return np.asarray(right_D / tables_DCC.sum(axis=(-2, -1)))


def f1(tables_DCC: np.ndarray) -> np.ndarray:
    """Return the F1 of class 0: 2 TP / (2 TP + FP + FN), or 0 if class 0 never occurs."""
    right_D = tables_DCC[..., 0, 0]
    total_D = tables_DCC[..., 0, :].sum(axis=-1) + tables_DCC[..., :, 0].sum(axis=-1)
    return np.divide(2.0 * right_D, total_D, out=np.zeros(np.shape(total_D)), where=total_D > 0)


def accuracy_f1(tables_DCC: np.ndarray) -> np.ndarray:
    """Return the mean of accuracy and F1, GLUE's score for MRPC."""
    return (accuracy(tables_DCC) + f1(tables_DCC)) / 2


def matthews(tables_DCC: np.ndarray) -> np.ndarray:
    """Return the Matthews correlation, for any number of classes as Gorodkin (2004) defines it.

    It is 0 if all labels or all predictions are equal.
    """
    tables_DCC = tables_DCC.astype(float)
    labels_DC, predictions_DC = tables_DCC.sum(axis=-1), tables_DCC.sum(axis=-2)
    n_D = labels_DC.sum(axis=-1)
    chance_D = (labels_DC * predictions_DC).sum(axis=-1)
    covariance_D = np.trace(tables_DCC, axis1=-2, axis2=-1) * n_D - chance_D
    spread_D = (n_D**2 - (labels_DC**2).sum(axis=-1)) * (n_D**2 - (predictions_DC**2).sum(axis=-1))
    return np.divide(covariance_D, np.sqrt(spread_D), out=np.zeros(np.shape(n_D)), where=spread_D > 0)


@dataclass(frozen=True)
class TextScore(CountedScore):
    """One score of text classification. name: for tables and figures; classes: their number C."""

    name: str
    classes: int
    statistic: Callable[[np.ndarray], np.ndarray]  # tables of counts -> a score for each table
    draws = DRAWS

    def outcomes(self, predictions_N: Any, labels_N: Any) -> np.ndarray:
        """Return label * C + prediction of each example, the argument of all other methods."""
        predictions_N, labels_N = np.asarray(predictions_N, np.int64), np.asarray(labels_N, np.int64)
        if predictions_N.ndim != 1 or predictions_N.shape != labels_N.shape:
            raise ValueError(f"predictions of shape {predictions_N.shape}, but labels of {labels_N.shape}")
        for what, classes_N in (("predictions", predictions_N), ("labels", labels_N)):
            if len(classes_N) and not 0 <= classes_N.min() <= classes_N.max() < self.classes:
                raise ValueError(
                    f"{what} from {classes_N.min()} to {classes_N.max()}: expected 0 to {self.classes - 1}"
                )
        return np.asarray(labels_N * self.classes + predictions_N)

    def of_counts(self, cells_K: np.ndarray, counts_DK: np.ndarray) -> np.ndarray:
        """Return the score of each row's table of counts, (C, C): labels down, predictions across."""
        tables = np.zeros((len(counts_DK), self.classes**2), np.int64)
        tables[:, cells_K] = counts_DK
        return self.statistic(tables.reshape(-1, self.classes, self.classes))

    def truth(self, outcomes_N: np.ndarray) -> np.ndarray:
        """Return the labels."""
        return np.asarray(outcomes_N // self.classes)

    def width(self, cells_K: np.ndarray) -> int:
        return self.classes**2


@dataclass(frozen=True)
class Accuracy(TextScore):
    """Accuracy, with Wilson's interval and, for paired comparisons, the exact McNemar test."""

    def points(self, outcomes_N: np.ndarray) -> int:
        """Return the number of correct examples, which model selection maximizes."""
        return self.count_correct(outcomes_N)

    def count_correct(self, outcomes_N: np.ndarray) -> int:
        """Return the number of correct examples."""
        return int(self._correct(outcomes_N).sum())

    def interval(self, outcomes_N: np.ndarray) -> tuple[float, float]:
        """Return Wilson's 95% interval of the accuracy."""
        return intervals.wilson(self.count_correct(outcomes_N), len(outcomes_N))

    def variance(self, outcomes_N: np.ndarray) -> float:
        """Return p (1 - p) / N for the accuracy p; its root is the standard error."""
        share = self.score(outcomes_N)
        return share * (1 - share) / len(outcomes_N)

    def compare(self, one_N: np.ndarray, two_N: np.ndarray) -> Comparison:
        """Compare two models on one data set, by the exact McNemar test."""
        pair = self._correct(one_N), self._correct(two_N)
        low, high = paired_tests.paired_mean_interval([pair])
        return Comparison(self.score(one_N) - self.score(two_N), low, high, paired_tests.mcnemar_exact(*pair).p)

    def compare_means(self, pairs: Sequence[Pair]) -> Comparison:
        """Compare two models' mean accuracy over data sets, by a permutation test."""
        correct = [(self._correct(one_N), self._correct(two_N)) for one_N, two_N in pairs]
        difference, p = paired_tests.paired_mean_test(correct, seed=0)
        return Comparison(difference, *paired_tests.paired_mean_interval(correct), p)

    def _correct(self, outcomes_N: np.ndarray) -> np.ndarray:
        return np.asarray(outcomes_N // self.classes == outcomes_N % self.classes)


def score_of(key: str, classes: int) -> TextScore:
    """Return the score of data.text.score=`key`: accuracy, accuracy_f1 or matthews."""
    if classes < 2:
        raise ValueError(f"a score needs at least two classes, not {classes}")
    made = {
        "accuracy": Accuracy("accuracy", classes, accuracy),
        "accuracy_f1": TextScore("mean of accuracy and F1", classes, accuracy_f1),
        "matthews": TextScore("Matthews correlation", classes, matthews),
    }
    if key not in made:
        raise ValueError(f"data.text.score={key}: expected one of {', '.join(made)}")
    return made[key]
