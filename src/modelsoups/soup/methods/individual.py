"""Methods that look at nothing but each ingredient's own accuracy: best, second best, uniform, logit ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelsoups.soup.coefficients import Soup
from modelsoups.soup.pool import Pool


def best(pool: Pool) -> Soup:
    """The ingredient with the highest hold-out accuracy (ties: `Pool.by_accuracy`)."""
    return pool.soup("best", [pool.by_accuracy[0]], trace=_ranking(pool))


def second_best(pool: Pool) -> Soup:
    """The next one in that order (a row of table 3). Raises ValueError for a pool of one."""
    if len(pool) < 2:
        raise ValueError("second_best: the pool has only one ingredient")
    return pool.soup("second_best", [pool.by_accuracy[1]], trace=_ranking(pool))


def uniform(pool: Pool) -> Soup:
    """The mean of all ingredients' weights (section 2, table 2)."""
    return pool.soup("uniform", range(len(pool)))


def ensemble(pool: Pool) -> Soup:
    """The mean of all ingredients' logits (section 3.1, table 2)."""
    return pool.soup("ensemble", range(len(pool)), space="logits")


def _ranking(pool: Pool) -> Sequence[dict[str, Any]]:
    n = len(pool.labels_N)
    return [
        {"ingredient": pool.ingredients[i].id, "correct": pool.individual_correct[i], "n": n} for i in pool.by_accuracy
    ]
