"""Methods without a search: the best or second-best model, the mean of all weights or logits."""

from typing import Any

from modelsoups.soup.coefficients import Soup
from modelsoups.soup.pool import Pool


def best(pool: Pool) -> Soup:
    """Return a Soup of the model with the best hold-out score (ties: `greedy_rule.best_first`)."""
    return pool.soup("best", [pool.by_score[0]], trace=_ranking(pool))


def second_best(pool: Pool) -> Soup:
    """Return a Soup of the second-best model on the hold-out (table 3); ValueError if only one."""
    if len(pool) < 2:
        raise ValueError("second_best: the pool has only one ingredient")
    return pool.soup("second_best", [pool.by_score[1]], trace=_ranking(pool))


def uniform(pool: Pool) -> Soup:
    """Return the uniform soup, the mean of all models' weights (section 2, table 2)."""
    return pool.soup("uniform", range(len(pool)))


def ensemble(pool: Pool) -> Soup:
    """Return the ensemble of all models, the mean of their logits (section 3.1, table 2)."""
    return pool.soup("ensemble", range(len(pool)), space="logits")


def _ranking(pool: Pool) -> list[dict[str, Any]]:
    rows = []
    for i in pool.by_score:
        correct = pool.individual_scores[i]
        rows.append({"ingredient": pool.ingredients[i].id, "correct": correct, "n": len(pool.labels_N)})
    return rows
