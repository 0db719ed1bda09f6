"""The greedy rule, Recipe 1 (section 2): a model joins the soup if the score does not fall.

The paper compares with >=, the authors' code with >; `strict` selects >. The sum of the members'
weights is kept, so that trying a model takes one load and one evaluation, however large the soup.
"""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Score = float | tuple[float, ...]  # larger is better; if there are several metrics, none may fall
Evaluation = tuple[Score | None, int]  # score (None: rejected early), images seen


@dataclass
class GreedySearch:
    """A greedy search in progress: the indices of members so far (`picks`) and all decisions.

    individual: each model's own score. judge(i, best, strict, name) returns the score of the soup
    with model i, or None once it is sure that model i is rejected (strict: also if the score equals
    `best`); name: for errors. add(i) adds model i. n: hold-out images. trace: a dict per try.
    """

    names: Sequence[str]
    individual: Sequence[Score]
    judge: Callable[[int, Score, bool, str], Evaluation]
    add: Callable[[int], None]
    n: int
    picks: list[int] = field(default_factory=list)
    trace: list[dict[str, Any]] = field(default_factory=list)
    best: Score | None = None  # score of the members so far; None while there are none
    refused_in_a_row: int = 0

    def run(
        self,
        order: Sequence[int],
        strict: bool,
        replacement: bool = False,
        patience: int | None = None,
        max_picks: int | None = None,
    ) -> "GreedySearch":
        """Try to add the models of these indices in order: once, or repeatedly with replacement.

        With replacement, rounds repeat until one adds no model or there are `max_picks` members (by
        default twice the number of models). After the first round a model must raise the score, as
        the best one averaged with itself scores the same. patience: rejections in a row before it
        stops.
        """
        most_refusals = len(order) if patience is None else patience
        most_picks = 2 * len(order) if max_picks is None else max_picks
        for step in itertools.count() if replacement else range(len(order)):
            if self.refused_in_a_row >= most_refusals or len(self.picks) >= most_picks:
                break
            self.consider(order[step % len(order)], strict or step >= len(order))
        return self

    def consider(self, i: int, strict: bool) -> None:
        """Score the soup with model i, add i if not worse (strict: if better); extend `trace`."""
        score, seen = self.individual[i], 0  # the first candidate always joins, with its own score
        kept = self.best is None
        if self.best is not None:
            members = "+".join(self.names[pick] for pick in self.picks)
            judged, seen = self.judge(i, self.best, strict, f"{members} with {self.names[i]}")
            kept = judged is not None and joins(judged, self.best, strict)
            score = judged  # type: ignore[assignment]
        if kept:
            self.add(i)
            self.picks.append(i)
            self.best = score
        self.refused_in_a_row = 0 if kept else self.refused_in_a_row + 1
        row = {"ingredient": self.names[i], "correct": score, "n": self.n, "kept": kept, "best": self.best}
        self.trace.append(row if score is not None else {**row, "seen": seen})


def joins(score: Score, best: Score, strict: bool) -> bool:
    """Return whether no metric of `score` is below `best` and, if strict, at least one is above."""
    a, b = ((x,) if isinstance(x, (int, float)) else x for x in (score, best))
    return all(x >= y for x, y in zip(a, b, strict=True)) and (not strict or a != b)


def mean_score(score: Score | Sequence[float]) -> float:
    return score if isinstance(score, (int, float)) else sum(score) / len(score)


def best_first(scores: Sequence[Score]) -> list[int]:
    """Return indices in order of decreasing score; several metrics are ranked by their mean.

    Among ties the later index comes first: the authors' code sorts in ascending order and reverses.
    """
    ranks = list(map(mean_score, scores))
    return sorted(range(len(ranks)), key=lambda i: (ranks[i], i), reverse=True)


def random_order(names: Sequence[str], seed: int) -> list[int]:
    """Return indices sorted by a hash of seed and name; adding a name keeps the others' order."""
    keys = [hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in names]
    return sorted(range(len(names)), key=keys.__getitem__)
