"""What a pool refuses."""

from dataclasses import replace

import pytest
import torch
from handmade import logits_of, margin_pool

from modelsoups.soup.methods import METHODS

A, B = (4, 1, 1, -2), (-1, -0.5, 1, 3)  # margins


def test_what_a_pool_refuses() -> None:
    pool = margin_pool(A, B)
    with pytest.raises(ValueError, match="the pool is empty"):
        replace(pool, ingredients=(), logits=())
    with pytest.raises(ValueError, match="2 ingredients but logits of 1"):
        replace(pool, logits=pool.logits[:1])
    with pytest.raises(ValueError, match="ingredient a is in the pool twice"):
        replace(pool, ingredients=(pool.ingredients[0],) * 2)
    with pytest.raises(ValueError, match=r"ingredient b: hold-out logits \(3, 2\) for 4 images"):
        replace(pool, logits=(pool.logits[0], pool.logits[1][:3]))
    with pytest.raises(ValueError, match="ingredient b: hold-out logits contain NaN"):
        replace(pool, logits=(pool.logits[0], pool.logits[1] * float("nan")))
    with pytest.raises(ValueError, match="the hold-out is empty"):
        replace(pool, labels_N=torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match="only one ingredient"):
        METHODS["second_best"](margin_pool(A))


def test_an_evaluator_that_returns_nan_is_named() -> None:
    pool = replace(margin_pool(A, B), evaluate=lambda state: logits_of(state) * float("nan"))
    with pytest.raises(ValueError, match="soup of a with b: hold-out logits contain NaN or infinity"):
        METHODS["greedy"](pool)
