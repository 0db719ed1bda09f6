"""Methods that choose on the hold-out, on pools of margins worked out by hand (see handmade.py)."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from handmade import logits_of, margin_pool
from hypothesis import given, settings
from hypothesis import strategies as st

from modelsoups.soup.coefficients import Soup
from modelsoups.soup.methods import METHODS, Pool
from modelsoups.stats import scores
from modelsoups.weights.state_dicts import mix

# Right on 3, 2, 1 and 1 of the four images.
A, B, C, D = (4, 1, 1, -2), (-1, -0.5, 1, 3), (-9, -9, 1, -9), (1, -0.1, -0.1, -0.1)


def mixed_correct(pool: Pool, soup: Soup) -> int:
    """Hold-out images right, from the coefficients alone."""
    index = {i.id: n for n, i in enumerate(pool.ingredients)}
    states = [pool.state(index[name]) for name in soup.ingredients]
    return scores.correct(logits_of(mix(states, soup.coefficients)), pool.labels_N)


def decisions(soup: Soup) -> list[tuple[str, int, bool]]:
    return [(t["ingredient"], t["correct"], t["kept"]) for t in soup.trace]


def test_greedy_by_hand() -> None:
    """Order a (3), b (2), then d before c (1 each, the later first).

    a + b = (3, .5, 2, 1): 4 right, kept. + d = (4, .4, 1.9, .9): 4 again, kept by >=. + c = (-5, -8.6, 2.9, -8.1): 1.
    """
    soup = METHODS["greedy"](margin_pool(A, B, C, D))
    assert soup.ingredients == ("a", "b", "d")
    assert soup.coefficients == {"*": [1 / 3] * 3}
    assert decisions(soup) == [("a", 3, True), ("b", 4, True), ("d", 4, True), ("c", 1, False)]
    assert [t["best"] for t in soup.trace] == [3, 4, 4, 4]


def test_strict_greedy_refuses_an_equal() -> None:
    """With the code's > d is refused, and c after it: a + b + c = (-6, -8.5, 3, -8)."""
    soup = METHODS["greedy"](margin_pool(A, B, C, D), strict=True)
    assert soup.ingredients == ("a", "b")
    assert decisions(soup) == [("a", 3, True), ("b", 4, True), ("d", 4, False), ("c", 1, False)]


def test_greedy_begins_with_the_first_of_a_random_order_however_bad() -> None:
    pool = margin_pool(A, B, C, D)
    firsts = {METHODS["greedy"](pool, order_seed=seed).trace[0]["ingredient"] for seed in range(40)}
    assert firsts == {"a", "b", "c", "d"}
    for seed in range(5):
        soup = METHODS["greedy"](pool, order_seed=seed)
        assert soup.method == "greedy_random"
        assert soup.trace[0]["kept"]
        assert soup == METHODS["greedy_random"](pool, order_seed=seed)


def test_a_random_order_depends_on_ids_not_on_the_listing() -> None:
    order = [t["ingredient"] for t in METHODS["greedy"](margin_pool(A, B, C, D), order_seed=3).trace]
    listed_otherwise = margin_pool(D, C, A, B, names="dcab")
    assert [t["ingredient"] for t in METHODS["greedy"](listed_otherwise, order_seed=3).trace] == order
    one_less = margin_pool(A, B, D, names="abd")
    assert [t["ingredient"] for t in METHODS["greedy"](one_less, order_seed=3).trace] == [i for i in order if i != "c"]


def test_a_candidate_costs_one_evaluation_and_members_are_not_reloaded() -> None:
    pool = margin_pool(A, B, C, D)
    evaluations, loads = [], []
    counted = replace(
        pool,
        evaluate=lambda state: evaluations.append(1) or logits_of(state),
        state=lambda i: loads.append(i) or pool.state(i),
    )
    assert METHODS["greedy"](counted).ingredients == ("a", "b", "d")
    assert len(evaluations) == 3  # the first is known already
    assert len(loads) == 3 + 3  # once to try, once more to keep; the first only to keep


def test_greedy_with_replacement_by_hand() -> None:
    """a = (3, 1.5, -1): 2 right; a + b = (1, -.5, 3): 2, kept by >=. Second round: + a = (4, 1, 2): 3 > 2, kept.

    Then + b = (2, -1, 6): 2, and + a = (7, 2.5, 1): 3, no better: nobody helps. Two of a, one of b.
    """
    soup = METHODS["greedy_replacement"](margin_pool((3, 1.5, -1), (-2, -2, 4)))
    assert soup.ingredients == ("a", "b")
    assert soup.coefficients == {"*": [2 / 3, 1 / 3]}
    assert decisions(soup) == [("a", 2, True), ("b", 2, True), ("a", 3, True), ("b", 2, False), ("a", 3, False)]
    limited = METHODS["greedy_replacement"](margin_pool((3, 1.5, -1), (-2, -2, 4)), max_picks=1)
    assert limited.coefficients == {"*": [1.0]}


def test_greedy_with_replacement_of_one_model_ends() -> None:
    assert METHODS["greedy_replacement"](margin_pool((1, -1))).coefficients == {"*": [1.0]}
    with pytest.raises(ValueError, match="max_picks=0"):
        METHODS["greedy_replacement"](margin_pool((1, -1)), max_picks=0)


def test_greedy_ensemble_by_hand() -> None:
    """These models are their logits, so the greedy ensemble is the greedy soup; and it needs no evaluation."""
    pool = margin_pool(A, B, C, D)
    blind = replace(pool, evaluate=lambda state: pytest.fail("evaluated"), state=lambda i: pytest.fail("loaded"))
    soup = METHODS["greedy_ensemble"](blind)
    assert (soup.space, soup.ingredients, soup.coefficients) == ("logits", ("a", "b", "d"), {"*": [1 / 3] * 3})
    assert decisions(soup) == decisions(METHODS["greedy"](pool))
    assert METHODS["greedy_ensemble"](pool, strict=True).ingredients == ("a", "b")


pools = st.integers(1, 6).flatmap(
    lambda images: st.lists(st.lists(st.integers(-9, 9), min_size=images, max_size=images), min_size=1, max_size=6)
)


@settings(max_examples=150, deadline=None)
@given(pools)
def test_greedy_is_never_below_the_best_individual(models: list[list[int]]) -> None:
    pool = margin_pool(*models)
    best = mixed_correct(pool, METHODS["best"](pool))
    assert best == max(pool.individual_scores)
    greedy = METHODS["greedy"](pool)
    assert greedy.trace[-1]["best"] >= best
    assert mixed_correct(pool, greedy) == greedy.trace[-1]["best"], "the coefficients give what was evaluated"
    replacement = METHODS["greedy_replacement"](pool, max_picks=1000)
    assert replacement.trace[-1]["best"] >= greedy.trace[-1]["best"]


@settings(max_examples=150, deadline=None)
@given(pools, st.booleans())
def test_greedy_is_recipe_1(models: list[list[int]], strict: bool) -> None:
    """Against Recipe 1 written down naively: average again for every candidate."""

    def right(members: list[int]) -> int:
        mean_N = torch.stack([torch.tensor(models[i], dtype=torch.float64) for i in members]).sum(0)
        return int((mean_N >= 0).sum())  # equal logits: the first class, which is the label

    order = sorted(range(len(models)), key=lambda i: right([i]))[::-1]
    members = [order[0]]
    for i in order[1:]:
        gain = right([*members, i]) - right(members)
        if gain > 0 or (gain == 0 and not strict):
            members.append(i)
    soup = METHODS["greedy"](margin_pool(*models), strict=strict)
    assert soup.ingredients == tuple("abcdefgh"[i] for i in members)


@settings(max_examples=80, deadline=None)
@given(pools, st.randoms(use_true_random=False))
def test_the_listing_matters_only_for_ties(models: list[list[int]], random: Any) -> None:
    pool = margin_pool(*models)
    if len(set(pool.individual_scores)) < len(models):
        return
    listing = list(range(len(models)))
    random.shuffle(listing)
    shuffled = margin_pool(*[models[i] for i in listing], names="".join("abcdef"[i] for i in listing))
    for method in ("best", "greedy", "greedy_replacement", "greedy_ensemble"):
        assert METHODS[method](shuffled) == METHODS[method](pool)
