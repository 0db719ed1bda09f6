"""The scores of text classification, their bootstrap intervals, and paired comparisons of models.

An array `outcomes_N` has a number label * C + prediction for each of N examples, with C classes.
Class 0, the first option of the prompt, is the positive class of F1, as in GLUE's MRPC.
Suffixes of other names: D bootstrap draws, K different outcomes that occur.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelsoups.stats import intervals, paired_tests
from modelsoups.stats.intervals import mean_over_sets
from modelsoups.stats.paired_tests import Comparison

DRAWS = 10_000  # of a bootstrap; its p-value is at least 2 / 10,001
BLOCK = 2**22  # numbers of drawn tables in memory at a time
SAME = 1e-12  # scores that differ by less are equal: the difference is rounding
Pair = tuple[np.ndarray, np.ndarray]  # outcomes_N of two models on one data set


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
class TextScore:
    """One score of text classification. name: for tables and figures; classes: their number C."""

    name: str
    classes: int
    statistic: Callable[[np.ndarray], np.ndarray]  # tables of counts -> a score for each table

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

    def score(self, outcomes_N: np.ndarray) -> float:
        """Return the score; ValueError if there are no examples."""
        return float(self.statistic(self._table(outcomes_N)))

    def points(self, outcomes_N: np.ndarray) -> float:
        """Return the score times the number of examples, which model selection maximizes."""
        return self.score(outcomes_N) * len(outcomes_N)

    def count_correct(self, outcomes_N: np.ndarray) -> int:
        """Return 0, since this score is not an accuracy."""
        return 0

    def interval(self, outcomes_N: np.ndarray) -> tuple[float, float]:
        """Return the 95% percentile interval of the score, by a bootstrap over examples."""
        low, high = np.quantile(self._scores(outcomes_N), [0.025, 0.975])
        return float(low), float(high)

    def variance(self, outcomes_N: np.ndarray) -> float:
        """Return the bootstrap variance of the score; its root is the standard error."""
        return float(self._scores(outcomes_N).var(ddof=1))

    def compare(self, one_N: np.ndarray, two_N: np.ndarray) -> Comparison:
        """Compare two models on one data set, by a paired bootstrap over its examples."""
        return self.compare_means([(one_N, two_N)])

    def compare_means(self, pairs: Sequence[Pair]) -> Comparison:
        """Compare two models' mean scores over data sets, by a paired bootstrap over the examples.

        p is twice the share of draws in which the difference is zero or has the other sign. So p is
        below 0.05 where zero is outside the 95% percentile interval. A draw is added, so p > 0.
        """
        difference = mean_over_sets([self.score(one_N) - self.score(two_N) for one_N, two_N in pairs])
        rng = np.random.default_rng(0)
        drawn_D = np.mean([self._differences(pair, rng) for pair in pairs], axis=0)
        low, high = np.quantile(drawn_D, [0.025, 0.975])
        tail = min((drawn_D < SAME).sum(), (drawn_D > -SAME).sum())
        p = min(1.0, 2 * (int(tail) + 1) / (DRAWS + 1))
        return Comparison(difference, float(low), float(high), p)

    def _table(self, outcomes_N: np.ndarray) -> np.ndarray:
        """Return the counts of outcomes as a table, (C, C): labels down, predictions across."""
        if not len(outcomes_N):
            raise ValueError(f"{self.name}: there are no examples")
        return np.bincount(outcomes_N, minlength=self.classes**2).reshape(self.classes, self.classes)

    def _scores(self, outcomes_N: np.ndarray) -> np.ndarray:
        """Return the score of each bootstrap draw, (D,); the same each time."""
        cells_K, counts_K = np.unique(outcomes_N, return_counts=True)
        if not len(cells_K):
            raise ValueError(f"{self.name}: there are no examples")
        return self._drawn(counts_K, [cells_K], np.random.default_rng(0))[0]

    def _differences(self, pair: Pair, rng: np.random.Generator) -> np.ndarray:
        """Return the difference of the two models' scores in each bootstrap draw, (D,)."""
        one_N, two_N = pair
        labels_N = one_N // self.classes
        if one_N.shape != two_N.shape or not np.array_equal(labels_N, two_N // self.classes):
            raise ValueError(f"{self.name}: the two models' outcomes are not of the same examples")
        both_KN, counts_K = np.unique(np.stack([one_N, two_N]), axis=1, return_counts=True)
        one_D, two_D = self._drawn(counts_K, list(both_KN), rng)
        return one_D - two_D

    def _drawn(self, counts_K: np.ndarray, cells: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
        """Draw the examples anew; return for each model (cells_K: its outcomes) its scores, (D,).

        counts_K: how many examples have each combination of outcomes. Only these numbers matter, so
        a draw of N examples with replacement is a draw from their multinomial distribution.
        """
        n, size = int(counts_K.sum()), self.classes**2
        scores: list[list[np.ndarray]] = [[] for _ in cells]
        left = DRAWS
        while left:
            draws = min(left, max(1, BLOCK // size))
            left -= draws
            drawn_DK = rng.multinomial(n, counts_K / n, size=draws)
            for found, cells_K in zip(scores, cells, strict=True):
                tables = np.zeros((draws, size), np.int64)
                for k, cell in enumerate(cells_K):
                    tables[:, cell] += drawn_DK[:, k]
                found.append(self.statistic(tables.reshape(draws, self.classes, self.classes)))
        return [np.concatenate(found) for found in scores]


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
