"""SoCE: experts of categories of classes, and a grid of their weights."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from handmade import ingredient, margin_pool, network_pool
from torch import Tensor

from modelsoups.soup.methods import METHODS, Pool
from modelsoups.soup.methods.soce import categories_of, experts_of, weights_of

soce = METHODS["soce"]


def pool_of(predicted: dict[str, list[int]], labels: list[int], classes: int) -> Pool:
    """Models whose weights are their logits, with a 1 at the class that they predict."""
    states = [{"logits": torch.eye(classes)[torch.tensor(answers)]} for answers in predicted.values()]

    def evaluate(state: dict[str, Tensor]) -> Tensor:
        return state["logits"]

    return Pool(
        ingredients=tuple(map(ingredient, predicted)),
        logits=tuple(map(evaluate, states)),
        labels_N=torch.tensor(labels),
        state=states.__getitem__,
        evaluate=evaluate,
    )


LABELS = [0, 0, 1, 1, 2, 2]
PREDICTED = {
    "low": [0, 0, 1, 1, 0, 0],  # knows classes 0 and 1
    "high": [2, 2, 2, 2, 2, 2],  # knows class 2
    "poor": [0, 1, 1, 0, 0, 1],  # knows half of classes 0 and 1
}


def test_experts_by_hand() -> None:
    """Accuracies of low, high, poor: classes 0 and 1 (1, 0, 1/2), correlation 1; class 2 (0, 1, 0), -0.87 with them."""
    accuracy_KC = np.array([[1, 1, 0], [0, 0, 1], [0.5, 0.5, 0]])
    first, second, third = categories_of(accuracy_KC, 2)
    assert first == second != third
    assert experts_of(pool_of(PREDICTED, LABELS, 3), 2) == {0: [0, 1], 1: [2]}


def test_the_weights_by_hand() -> None:
    """With weight w of low, the images of classes 0 and 1 are right if w > 1/2, and those of class 2 if w < 1/2.

    At 1/2 the first of equal logits wins: classes 0 and 1 are right, and class 2 is not. So equal weights have
    4 of 6, as w of 0.6 to 0.9; below, 2 of 6. Of equals the first is chosen.
    """
    soup = soce(pool_of(PREDICTED, LABELS, 3), categories=2)
    assert soup.ingredients == ("low", "high")
    assert soup.coefficients == {"*": [0.5, 0.5]}
    assert [step["correct"] for step in soup.trace] == [4, 2, 2, 2, 2, 4, 4, 4, 4]
    assert soup.trace[0]["experts"] == {"low": [0, 1], "high": [2]}
    assert soup.trace[1]["ingredient"] == "0.1 low + 0.9 high"


def test_unequal_weights_win_where_they_are_better() -> None:
    """The logits of high are three times as large, so classes 0 and 1 are right if w > 3 (1 - w): from 0.8 on."""
    pool = pool_of(PREDICTED, LABELS, 3)
    states = [pool.state(0), {"logits": 3 * pool.state(1)["logits"]}, pool.state(2)]
    soup = soce(replace(pool, state=states.__getitem__), categories=2)
    assert soup.coefficients == {"*": [0.8, 0.2]}
    assert [step["correct"] for step in soup.trace] == [2, 2, 2, 2, 2, 2, 2, 4, 4]
    assert [step["kept"] for step in soup.trace] == [True, False, False, False, False, False, False, True, False]


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (2, 9), (3, 37), (4, 85), (10, 1)])
def test_the_grid_has_all_weights_in_tenths(count: int, expected: int) -> None:
    grid = weights_of(list(range(count)))
    shares = {tuple(picks.count(i) / len(picks) for i in range(count)) for picks in grid}
    assert len(shares) == len(grid) == expected == math.comb(9, count - 1) + (count == 3 or count == 4)
    assert all(min(row) >= 0.1 and math.isclose(sum(row), 1) for row in shares)
    assert grid[0] == list(range(count))


def test_classes_on_which_all_do_equally_well_join_others() -> None:
    alone = categories_of(np.array([[1.0, 0.0, 0.3], [0.0, 1.0, 0.3]]), 2)
    assert alone[0] != alone[1]
    assert alone[2] in alone[:2]
    assert categories_of(np.array([[1.0, 0.0]]), 2).tolist() == [1, 1], "one model has no correlations"


def test_one_expert_is_one_model() -> None:
    assert soce(margin_pool((4, 1), (-1, 3))).coefficients == {"*": [1.0]}, "the hold-out has one class"
    assert soce(pool_of({"a": LABELS, "b": [0] * 6}, LABELS, 3)).ingredients == ("a",)


def test_it_repeats() -> None:
    pool = network_pool(5)
    assert soce(pool) == soce(pool)


def test_what_is_refused() -> None:
    for categories in (1, 11):
        with pytest.raises(ValueError, match=f"soce: categories={categories}; expected 2 to 10"):
            soce(margin_pool((4, 1), (-1, 3)), categories=categories)
    pool = pool_of(PREDICTED, LABELS, 3)
    halves = replace(pool, labels_N=torch.full((6,), 0.5), points=lambda logits_NC, labels_N: 0.0)
    with pytest.raises(ValueError, match="labels are float32, expected whole numbers"):
        soce(halves)
