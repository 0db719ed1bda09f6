"""RADIN: subsets ranked by their ensembles, of which few are mixed."""

import importlib
import itertools
from dataclasses import replace

import pytest
import torch
from handmade import margin_pool, network_pool
from hypothesis import given, settings
from hypothesis import strategies as st

from modelsoups.soup.methods import METHODS, Pool
from modelsoups.soup.methods.radin import ensemble_scores, subsets_of
from modelsoups.weights.state_dicts import mix

radin = METHODS["radin"]
A, B, C = (4, 1, -1, -2), (-1, -0.5, 3, 3), (-9, -9, -9, 1)


def test_by_hand() -> None:
    """Right are, of 4: a 2, b 2, c 1; a + b 4, with margins (3, 1/2, 2, 1); a + c 0; b + c 1; a + b + c 1.

    So a + b has the best ensemble, and here its soup is its ensemble. Equals keep their order, the smallest
    first: b + c comes before a + b + c. Best alone is b, the later of a and b.
    """
    soup = radin(margin_pool(A, B, C), budget=2)
    assert set(soup.ingredients) == {"a", "b"}
    assert soup.coefficients == {"*": [0.5, 0.5]}
    assert soup.trace == (
        {"ingredient": "b + a", "correct": 4, "n": 4, "kept": True, "best": 4, "ensemble": 4},
        {"ingredient": "b + c", "correct": 1, "n": 4, "kept": False, "best": 4, "ensemble": 1},
        {"ingredient": "b", "correct": 2, "n": 4, "kept": False, "best": 4, "ensemble": 2},
    )


def test_a_soup_worse_than_its_ensemble_loses_to_the_best_model() -> None:
    """The ensemble only proposes; the soup is evaluated."""
    pool = margin_pool(A, B, C)
    wrong = replace(pool, evaluate=lambda state: pool.evaluate({"margin": -state["margin"].abs()}))
    assert radin(wrong).ingredients == ("b",)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 7).flatmap(
        lambda n: st.lists(st.lists(st.integers(-9, 9), min_size=n, max_size=n), min_size=1, max_size=5)
    ),
    st.integers(1, 9),
)
def test_it_is_never_below_the_best_model_and_with_budget_for_all_the_best_subset(models, budget: int) -> None:
    pool = margin_pool(*models)
    soup = radin(pool, budget=budget)
    assert soup.trace[-1]["best"] >= max(pool.individual_scores)
    assert len(soup.trace) <= budget + 1
    every = [s for n in range(1, len(models) + 1) for s in itertools.combinations(range(len(models)), n)]
    best = max(score_of(pool, subset) for subset in every)
    assert radin(pool, budget=len(every)).trace[-1]["best"] == best


def score_of(pool: Pool, subset: tuple[int, ...]) -> float:
    mixed = mix([pool.state(i) for i in subset], {"*": [1 / len(subset)] * len(subset)})
    return pool.score_of(pool.evaluate(mixed), "")


def test_subsets_are_all_or_the_best_first_and_drawn_ones() -> None:
    assert subsets_of([2, 0, 1], 4, 0) == [(2, 0), (2, 1), (0, 1), (2, 0, 1)]
    drawn = subsets_of(range(30), 100, 5)
    assert drawn[:29] == [tuple(range(n)) for n in range(2, 31)]
    assert len(set(drawn)) == 100
    assert drawn == subsets_of(range(30), 100, 5) != subsets_of(range(30), 100, 6)
    assert all(list(subset) == sorted(set(subset)) and len(subset) > 1 for subset in drawn)
    assert subsets_of([2, 0, 1], 3, 0)[:2] == [(2, 0), (2, 0, 1)]
    assert subsets_of([0], 10, 0) == []


def test_counted_in_blocks_or_as_a_whole_the_scores_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = network_pool(4)
    subsets = subsets_of(range(4), 100, 0)
    whole = ensemble_scores(replace(pool, points=lambda logits_NC, labels_N: pool.points(logits_NC, labels_N)), subsets)
    for numbers in (16, 64, 4096):
        monkeypatch.setattr(importlib.import_module("modelsoups.soup.methods.radin"), "BLOCK", numbers)
        monkeypatch.setattr("modelsoups.soup.logit_blocks.BLOCK", numbers)
        assert ensemble_scores(pool, subsets) == whole


def test_one_model_is_chosen_without_evaluation() -> None:
    pool = replace(margin_pool((1, -1)), evaluate=lambda state: torch.zeros(0))
    assert radin(pool).coefficients == {"*": [1.0]}


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="radin: budget=0, candidates=1000; expected at least 1"):
        radin(margin_pool(A, B), budget=0)
    with pytest.raises(ValueError, match="radin: budget=10, candidates=0; expected at least 1"):
        radin(margin_pool(A, B), candidates=0)
    nan = replace(margin_pool(A, B), evaluate=lambda state: torch.full((4, 2), torch.nan))
    with pytest.raises(ValueError, match=r"soup of b \+ a: hold-out logits contain NaN"):
        radin(nan)
