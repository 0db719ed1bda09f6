"""Scores that depend only on how often each outcome occurs; bootstrap intervals, paired comparisons.

Suffixes: N examples, D bootstrap draws, K different outcomes that occur.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from modelsoups.stats.intervals import mean_over_sets
from modelsoups.stats.paired_tests import Comparison

BLOCK = 2**22  # numbers in memory at a time
SAME = 1e-12  # scores that differ by less are equal: the difference is rounding
Pair = tuple[np.ndarray, np.ndarray]  # outcomes_N of two models on one data set


class CountedScore(ABC):
    """A score of an array `outcomes_N`, one integer per example, from the counts of its values.

    name: for tables and figures. draws: of a bootstrap; a p-value is at least 2 / (draws + 1).
    """

    name: str
    draws = 1000

    @abstractmethod
    def of_counts(self, cells_K: np.ndarray, counts_DK: np.ndarray) -> np.ndarray:
        """Return a score, (D,), for each row of counts of the outcomes `cells_K`, sorted."""

    @abstractmethod
    def truth(self, outcomes_N: np.ndarray) -> np.ndarray:
        """Return the part of each outcome that no model changes, such as the label, (N,)."""

    def width(self, cells_K: np.ndarray) -> int:
        """Return the numbers that `of_counts` needs in memory for a draw."""
        return len(cells_K)

    def score(self, outcomes_N: np.ndarray) -> float:
        """Return the score; ValueError if there are no examples."""
        cells_K, counts_K = self._cells(outcomes_N)
        return float(self.of_counts(cells_K, counts_K[None])[0])

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
        p = min(1.0, 2 * (int(tail) + 1) / (self.draws + 1))
        return Comparison(difference, float(low), float(high), p)

    def _cells(self, outcomes_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not len(outcomes_N):
            raise ValueError(f"{self.name}: there are no examples")
        cells_K, counts_K = np.unique(outcomes_N, return_counts=True)
        return cells_K, counts_K

    def _scores(self, outcomes_N: np.ndarray) -> np.ndarray:
        """Return the score of each bootstrap draw, (D,); the same each time."""
        cells_K, counts_K = self._cells(outcomes_N)
        return self._drawn(counts_K, [cells_K], np.random.default_rng(0))[0]

    def _differences(self, pair: Pair, rng: np.random.Generator) -> np.ndarray:
        """Return the difference of the two models' scores in each bootstrap draw, (D,)."""
        one_N, two_N = pair
        if one_N.shape != two_N.shape or not np.array_equal(self.truth(one_N), self.truth(two_N)):
            raise ValueError(f"{self.name}: the two models' outcomes are not of the same examples")
        both_KN, counts_K = np.unique(np.stack([one_N, two_N]), axis=1, return_counts=True)
        one_D, two_D = self._drawn(counts_K, list(both_KN), rng)
        return one_D - two_D

    def _drawn(self, counts_K: np.ndarray, cells: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
        """Draw the examples anew; return for each model (cells_K: its outcomes) its scores, (D,).

        counts_K: how many examples have each combination of outcomes. Only these numbers matter, so a
        draw of N examples with replacement is a draw from their multinomial distribution.
        """
        n = int(counts_K.sum())
        merged = [np.unique(cells_K, return_inverse=True) for cells_K in cells]
        most = max(len(counts_K), *(self.width(own_K) for own_K, _ in merged))
        scores: list[list[np.ndarray]] = [[] for _ in cells]
        left = self.draws
        while left:
            draws = min(left, max(1, BLOCK // most))
            left -= draws
            drawn_DK = rng.multinomial(n, counts_K / n, size=draws)
            for found, (own_K, inverse_K) in zip(scores, merged, strict=True):
                found.append(self.of_counts(own_K, _summed(drawn_DK, inverse_K)))
        return [np.concatenate(found) for found in scores]


def _summed(drawn_DK: np.ndarray, group_K: np.ndarray) -> np.ndarray:
    """Return the sums of the columns of each group 0, 1, ...; every group has a column."""
    order = np.argsort(group_K, kind="stable")
    starts = np.flatnonzero(np.diff(group_K[order], prepend=-1))
    return np.asarray(np.add.reduceat(drawn_DK[:, order], starts, axis=1))
