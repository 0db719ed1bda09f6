"""Greedy methods: Recipe 1 and its variants (section 2; table 3: random order; appendix I: with replacement).

A candidate joins when the mean with it is right on at least as many hold-out images as the mean without. The paper's
Recipe 1 says >=, the authors' code says >: strict=True is the latter. The sum of the members is kept, so a candidate
costs one load and one evaluation, whatever the size of the soup.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelsoups.soup.coefficients import Soup
from modelsoups.soup.pool import Pool
from modelsoups.stats.scores import LogitSum
from modelsoups.weights.state_dicts import RunningSum


def greedy(pool: Pool, *, order_seed: int | None = None, strict: bool = False) -> Soup:
    """Recipe 1. Best first, so never below the best individual on the hold-out; or in the random order of a seed."""
    growth = _weights(pool)
    for i in _order(pool, order_seed):
        growth.consider(i, strict)
    method = "greedy" if order_seed is None else "greedy_random"
    return pool.soup(method, growth.picks, trace=growth.trace)


def greedy_random(pool: Pool, *, order_seed: int = 0, strict: bool = False) -> Soup:
    """Greedy in the random order of a seed, beginning with the first model in that order (table 3)."""
    return greedy(pool, order_seed=order_seed, strict=strict)


def greedy_replacement(pool: Pool, *, strict: bool = False, max_picks: int | None = None) -> Soup:
    """Greedy with replacement (appendix I gives no more than the name): coefficients are counts over their total.

    First Recipe 1, then its order again and again until a whole round helps nobody or max_picks (2 K) are reached.
    A repeated pick must be strictly better: the best model averaged with itself is always as good as before.
    """
    limit = 2 * len(pool) if max_picks is None else max_picks
    if limit < 1:
        raise ValueError(f"greedy_replacement: max_picks={limit}; expected at least 1")
    growth = _weights(pool)
    order = _order(pool, None)
    for step in itertools.count():
        if growth.refused_in_a_row >= len(pool) or len(growth.picks) >= limit:
            break
        growth.consider(order[step % len(pool)], strict or step >= len(pool))
    return pool.soup("greedy_replacement", growth.picks, trace=growth.trace)


def greedy_ensemble(pool: Pool, *, strict: bool = False) -> Soup:
    """Recipe 1 with the mean of logits in place of the mean of weights (table 3); no evaluation at all."""
    total = LogitSum()

    def judge(i: int, best: Score, strict: bool) -> Judged:
        whose = f"ensemble of {growth.so_far()} with {growth.names[i]}"
        return pool.correct(total.mean_with(pool.logits[i]), whose), len(pool.labels_N)

    growth = _growth(pool, judge, lambda i: total.add(pool.logits[i]))
    for i in _order(pool, None):
        growth.consider(i, strict)
    return pool.soup("greedy_ensemble", growth.picks, space="logits", trace=growth.trace)


Score = float | tuple[float, ...]  # of several metrics, none may fall
Judged = tuple[Score | None, int]  # None: it cannot reach what it must; and how many images were looked at


@dataclass
class Growth:
    """A greedy soup under way.

    individual holds each ingredient's own score; judge(i, best, strict) gives the score of the soup with ingredient i,
    or None as soon as it is sure to be refused (`core.holdout`); add keeps i.
    """

    names: Sequence[str]
    individual: Sequence[Score]
    judge: Callable[[int, Score, bool], Judged]
    add: Callable[[int], None]
    n: int  # hold-out images
    picks: list[int] = field(default_factory=list)
    trace: list[dict[str, Any]] = field(default_factory=list)
    best: Score | None = None  # of the soup so far; any first candidate beats no soup
    refused_in_a_row: int = 0

    def consider(self, i: int, strict: bool) -> None:
        """Evaluate the soup with ingredient i, keep it or not, and write the decision down."""
        score, seen = self.individual[i], 0  # a soup of one is that model
        kept = self.best is None
        if self.best is not None:
            judged, seen = self.judge(i, self.best, strict)
            kept = judged is not None and joins(judged, self.best, strict)
            score = judged  # type: ignore[assignment]
        if kept:
            self.add(i)
            self.picks.append(i)
            self.best = score
        self.refused_in_a_row = 0 if kept else self.refused_in_a_row + 1
        row = {"ingredient": self.names[i], "correct": score, "n": self.n, "kept": kept, "best": self.best}
        self.trace.append(row if score is not None else {**row, "seen": seen})

    def so_far(self) -> str:
        return "+".join(self.names[i] for i in self.picks)


def joins(score: Score, best: Score, strict: bool) -> bool:
    """Whether a candidate of this score is kept: no metric falls, and if strict one rises."""
    a, b = ((x,) if isinstance(x, (int, float)) else x for x in (score, best))
    return all(x >= y for x, y in zip(a, b, strict=True)) and (not strict or a != b)


def _weights(pool: Pool) -> Growth:
    """Growth of a mean of weights."""
    total = RunningSum()

    def judge(i: int, best: Score, strict: bool) -> Judged:
        mean, whose = total.mean_with(pool.state(i)), f"soup of {growth.so_far()} with {growth.names[i]}"
        return pool.correct(pool.evaluate(mean), whose), len(pool.labels_N)

    growth = _growth(pool, judge, lambda i: total.add(pool.state(i)))
    return growth


def _growth(pool: Pool, judge: Callable[[int, Score, bool], Judged], add: Callable[[int], None]) -> Growth:
    return Growth([i.id for i in pool.ingredients], pool.individual_correct, judge, add, len(pool.labels_N))


def _order(pool: Pool, seed: int | None) -> Sequence[int]:
    """Best first, or by the hash of seed and id: the same on any machine, and stable when ingredients are added."""
    if seed is None:
        return pool.by_accuracy
    return random_order([i.id for i in pool.ingredients], seed)


def random_order(names: Sequence[str], seed: int) -> list[int]:
    """Positions in the order of the hash of seed and name."""
    keys = [hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in names]
    return sorted(range(len(names)), key=keys.__getitem__)
