"""The scores of image classification (data.score): accuracy, macro F1, accuracy of the worst group.

WILDS defines the last two for iWildCam and FMoW (Koh et al. 2021; wilds/common/metrics and the `eval` of
both data sets in https://github.com/p-lambda/wilds). Suffixes: N images of a data set, D bootstrap draws,
K different outcomes that occur, C classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelsoups.stats import intervals, paired_tests
from modelsoups.stats.counted_scores import CountedScore, Pair
from modelsoups.stats.paired_tests import Comparison

BASE = 2**20  # an outcome of macro F1 is label * BASE + prediction
NO_GROUP = -1  # the group of images that count for no group, such as FMoW's region "Other"


class TopOne:
    """Top-1 accuracy. Outcomes: whether each image is classified correctly, (N,) booleans."""

    name = "top-1 accuracy"
    needs_groups = False

    def outcomes(self, predictions_N: np.ndarray, labels_N: np.ndarray, groups_N: np.ndarray | None) -> np.ndarray:
        return np.asarray(predictions_N == labels_N)

    def points(self, outcomes_N: np.ndarray) -> int:
        """Return the number of correct images."""
        return int(outcomes_N.sum())

    def score(self, outcomes_N: np.ndarray) -> float:
        return float(outcomes_N.mean())

    def count_correct(self, outcomes_N: np.ndarray) -> int:
        return int(outcomes_N.sum())

    def interval(self, outcomes_N: np.ndarray) -> tuple[float, float]:
        """Return Wilson's 95% interval."""
        return intervals.wilson(self.count_correct(outcomes_N), len(outcomes_N))

    def variance(self, outcomes_N: np.ndarray) -> float:
        """Return p (1 - p) / N for the accuracy p; its root is the standard error."""
        share = self.score(outcomes_N)
        return share * (1 - share) / len(outcomes_N)

    def compare(self, one_N: np.ndarray, two_N: np.ndarray) -> Comparison:
        """Compare two models on a data set by the exact McNemar test (Table 4)."""
        difference = self.score(one_N) - self.score(two_N)
        low, high = paired_tests.paired_mean_interval([(one_N, two_N)])
        return Comparison(difference, low, high, paired_tests.mcnemar_exact(one_N, two_N).p)

    def compare_means(self, pairs: Sequence[Pair]) -> Comparison:
        """Compare two models' mean accuracy over data sets by a permutation test (Table 4)."""
        difference, p = paired_tests.paired_mean_test(pairs, seed=0)
        return Comparison(difference, *paired_tests.paired_mean_interval(pairs), p)


class MacroF1(CountedScore):
    """The mean of the F1 of all classes that have images. Outcomes: label * BASE + prediction.

    As in WILDS, a class without images has no F1, but its predictions are errors of the other classes.
    """

    name = "macro F1"
    needs_groups = False

    def outcomes(self, predictions_N: np.ndarray, labels_N: np.ndarray, groups_N: np.ndarray | None) -> np.ndarray:
        return np.asarray(labels_N.astype(np.int64) * BASE + predictions_N)

    def truth(self, outcomes_N: np.ndarray) -> np.ndarray:
        """Return the labels."""
        return np.asarray(outcomes_N // BASE)

    def of_counts(self, cells_K: np.ndarray, counts_DK: np.ndarray) -> np.ndarray:
        labels_K, predictions_K = cells_K // BASE, cells_K % BASE
        classes_C = np.unique(labels_K)
        right_K = labels_K == predictions_K
        right_DC = _by_class(classes_C, labels_K[right_K], counts_DK[:, right_K])
        labels_DC = _by_class(classes_C, labels_K, counts_DK)
        predictions_DC = _by_class(classes_C, predictions_K, counts_DK)
        f1_DC = 2 * right_DC / np.maximum(labels_DC + predictions_DC, 1)
        return np.asarray(f1_DC.sum(axis=1) / (labels_DC > 0).sum(axis=1))  # F1 is 0 without images


class WorstGroup(CountedScore):
    """The accuracy of the group with the lowest accuracy. Outcomes: group * 2 + correct (0 or 1).

    Images of NO_GROUP count for no group. If there are no others, the score is their accuracy.
    """

    name = "worst-group accuracy"
    needs_groups = True

    def outcomes(self, predictions_N: np.ndarray, labels_N: np.ndarray, groups_N: np.ndarray | None) -> np.ndarray:
        """Return group * 2 + correct; ValueError if the data set has no groups."""
        if groups_N is None:
            raise ValueError("data.score=worst_group: this data set has no groups; choose accuracy or macro_f1")
        return np.asarray(groups_N.astype(np.int64) * 2 + (predictions_N == labels_N))

    def truth(self, outcomes_N: np.ndarray) -> np.ndarray:
        """Return the groups."""
        return np.asarray(outcomes_N // 2)

    def of_counts(self, cells_K: np.ndarray, counts_DK: np.ndarray) -> np.ndarray:
        groups_K, right_K = cells_K // 2, cells_K % 2 == 1
        groups_G = np.unique(groups_K)
        right_DG = _by_class(groups_G, groups_K[right_K], counts_DK[:, right_K])
        images_DG = _by_class(groups_G, groups_K, counts_DK)
        accuracy_DG = np.where(images_DG > 0, right_DG / np.maximum(images_DG, 1), np.inf)
        accuracy_DG[:, groups_G == NO_GROUP] += 2  # only chosen if there is nothing else
        worst_D = accuracy_DG.min(axis=1)
        return np.asarray(np.where(worst_D >= 2, worst_D - 2, worst_D))


ImageScore = TopOne | MacroF1 | WorstGroup
SCORES: dict[str, Any] = {"accuracy": TopOne, "macro_f1": MacroF1, "worst_group": WorstGroup}


def score_of(key: str) -> ImageScore:
    """Return the score of data.score=`key`: accuracy, macro_f1 or worst_group."""
    if key not in SCORES:
        raise ValueError(f"data.score={key}: expected one of {', '.join(SCORES)}")
    made: ImageScore = SCORES[key]()
    return made


def _by_class(classes_C: np.ndarray, class_K: np.ndarray, counts_DK: np.ndarray) -> np.ndarray:
    """Return the counts of each class, (D, C); columns of other classes are left out."""
    found_DC = np.zeros((len(counts_DK), len(classes_C)), dtype=np.int64)
    place_K = np.searchsorted(classes_C, class_K)
    known_K = (place_K < len(classes_C)) & (classes_C[np.minimum(place_K, len(classes_C) - 1)] == class_K)
    columns, places = np.flatnonzero(known_K), place_K[known_K]
    if len(columns):
        order = np.argsort(places, kind="stable")
        starts = np.flatnonzero(np.diff(places[order], prepend=-1))
        found_DC[:, places[order][starts]] = np.add.reduceat(counts_DK[:, columns[order]], starts, axis=1)
    return found_DC
