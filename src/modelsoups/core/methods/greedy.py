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

from torch import Tensor

from modelsoups.core.methods.pool import Pool
from modelsoups.core.metrics import LogitSum
from modelsoups.core.types import Soup
from modelsoups.core.weights import RunningSum


def greedy(pool: Pool, *, order_seed: int | None = None, strict: bool = False) -> Soup:
    """Recipe 1. Best first, so never below the best individual on the hold-out; or in the random order of a seed."""
    growth = Growth(pool, *_weights(pool))
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
    growth = Growth(pool, *_weights(pool))
    order = _order(pool, None)
    for step in itertools.count():
        if growth.refused_in_a_row >= len(pool) or len(growth.picks) >= limit:
            break
        growth.consider(order[step % len(pool)], strict or step >= len(pool))
    return pool.soup("greedy_replacement", growth.picks, trace=growth.trace)


def greedy_ensemble(pool: Pool, *, strict: bool = False) -> Soup:
    """Recipe 1 with the mean of logits in place of the mean of weights (table 3); no evaluation at all."""
    total = LogitSum()
    growth = Growth(pool, lambda i: total.mean_with(pool.logits[i]), lambda i: total.add(pool.logits[i]))
    for i in _order(pool, None):
        growth.consider(i, strict)
    return pool.soup("greedy_ensemble", growth.picks, space="logits", trace=growth.trace)


@dataclass
class Growth:
    """A greedy soup under way. mean_with(i) gives the hold-out logits_NC of the soup with ingredient i; add keeps i."""

    pool: Pool
    mean_with: Callable[[int], Tensor]
    add: Callable[[int], None]
    picks: list[int] = field(default_factory=list)
    trace: list[dict[str, Any]] = field(default_factory=list)
    correct: int = -1  # of the soup so far; any first candidate beats no soup
    refused_in_a_row: int = 0

    def consider(self, i: int, strict: bool) -> None:
        """Evaluate the soup with ingredient i, keep it or not, and write the decision down."""
        name = self.pool.ingredients[i].id
        if self.picks:
            correct = self.pool.correct(self.mean_with(i), f"soup of {self._names()} with {name}")
        else:
            correct = self.pool.individual_correct[i]  # a soup of one is that model
        kept = correct > self.correct or (correct == self.correct and not strict)
        if kept:
            self.add(i)
            self.picks.append(i)
            self.correct = correct
        self.refused_in_a_row = 0 if kept else self.refused_in_a_row + 1
        n = len(self.pool.labels_N)
        self.trace.append({"ingredient": name, "correct": correct, "n": n, "kept": kept, "best": self.correct})

    def _names(self) -> str:
        return "+".join(self.pool.ingredients[i].id for i in self.picks)


def _weights(pool: Pool) -> tuple[Callable[[int], Tensor], Callable[[int], None]]:
    """mean_with and add of a mean of weights."""
    total = RunningSum()
    return (
        lambda i: pool.evaluate(total.mean_with(pool.state(i))),
        lambda i: total.add(pool.state(i)),
    )


def _order(pool: Pool, seed: int | None) -> Sequence[int]:
    """Best first, or by the hash of seed and id: the same on any machine, and stable when ingredients are added."""
    if seed is None:
        return pool.by_accuracy
    keys = [hashlib.sha256(f"{seed}/{i.id}".encode()).digest() for i in pool.ingredients]
    return sorted(range(len(pool)), key=keys.__getitem__)
