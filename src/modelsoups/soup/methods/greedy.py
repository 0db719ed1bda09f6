"""Greedy soups: by Recipe 1 (section 2), in random order (table 3), with repeats (appendix I)."""

from collections.abc import Callable

import torch

from modelsoups.config.soup_options import MaxPicks, OrderSeed, Strict
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.greedy_rule import Evaluation, GreedySearch, Score, random_order
from modelsoups.soup.logit_blocks import LogitTotal
from modelsoups.soup.pool import Pool
from modelsoups.stats import scores
from modelsoups.weights.state_dicts import RunningSum


def greedy(pool: Pool, *, order_seed: OrderSeed = None, strict: Strict = False) -> Soup:
    """Choose a greedy soup (Recipe 1): try models best first, or shuffled by `order_seed`."""
    order = pool.by_score
    if order_seed is not None:
        order = tuple(random_order([i.id for i in pool.ingredients], order_seed))
    search = _search_weights(pool).run(order, strict)
    method = "greedy" if order_seed is None else "greedy_random"
    return pool.soup(method, search.picks, trace=search.trace)


def greedy_random(pool: Pool, *, order_seed: OrderSeed = 0, strict: Strict = False) -> Soup:
    """Choose a greedy soup, trying models in random order; the first one always joins (table 3)."""
    return greedy(pool, order_seed=order_seed, strict=strict)


def greedy_replacement(pool: Pool, *, strict: Strict = False, max_picks: MaxPicks = None) -> Soup:
    """Choose a greedy soup that may add a model repeatedly (appendix I; see `GreedySearch.run`)."""
    if max_picks is not None and max_picks < 1:
        raise ValueError(f"greedy_replacement: max_picks={max_picks}; expected at least 1")
    search = _search_weights(pool)
    search.run(pool.by_score, strict, replacement=True, max_picks=max_picks)
    return pool.soup("greedy_replacement", search.picks, trace=search.trace)


def greedy_ensemble(pool: Pool, *, strict: Strict = False) -> Soup:
    """Choose a greedy ensemble: Recipe 1 with means of logits instead of weights (table 3)."""
    total = LogitTotal(pool.logits, pool.labels_N, torch.float64)

    def judge(i: int, best: Score, strict: bool, name: str) -> Evaluation:
        return pool.score_of(total.mean_with(i), f"ensemble of {name}"), len(pool.labels_N)

    counts = pool.points is scores.correct  # counted in blocks of images, which takes less memory
    search = _search(pool, total.judge if counts else judge, total.add).run(pool.by_score, strict)
    return pool.soup("greedy_ensemble", search.picks, space="logits", trace=search.trace)


def _search_weights(pool: Pool) -> GreedySearch:
    """Return a greedy search that evaluates means of weights on the hold-out."""
    total = RunningSum()

    def judge(i: int, best: Score, strict: bool, name: str) -> Evaluation:
        logits_NC = pool.evaluate(total.mean_with(pool.state(i)))
        return pool.score_of(logits_NC, f"soup of {name}"), len(pool.labels_N)

    return _search(pool, judge, lambda i: total.add(pool.state(i)))


def _search(
    pool: Pool, judge: Callable[[int, Score, bool, str], Evaluation], add: Callable[[int], None]
) -> GreedySearch:
    names = [i.id for i in pool.ingredients]
    return GreedySearch(names, pool.individual_scores, judge, add, len(pool.labels_N))
