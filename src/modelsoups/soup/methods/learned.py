"""Learned soups (appendix I, equation 2): coefficients by gradient descent on the hold-out.

The paper keeps all models in memory. Here a step averages the checkpoints, runs one forward and
backward pass of one model, and computes inner products: the derivative of the loss by a model's
coefficient is the inner product of its weights and the derivative by the averaged weights.

Letters of array names: K ingredients, G layer groups.
"""

import itertools
import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelsoups.checkpoints.states import State, averaged
from modelsoups.checkpoints.tensors import checkpoint_of
from modelsoups.config.soup_options import BatchSize, Epochs, LearningRate, Seed
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.pool import Gradient, Pool
from modelsoups.weights.coefficient_gradients import Stack
from modelsoups.weights.state_dicts import EVERYTHING, layer_of, of_group


@dataclass(frozen=True)
class Descent:
    """Options of gradient descent: epochs, learning rate of AdamW, batch size, shuffling seed."""

    epochs: int
    lr: float
    batch_size: int
    seed: int


def learned(
    pool: Pool, *, epochs: Epochs = 3, lr: LearningRate = 0.1, batch_size: BatchSize = 128, seed: Seed = 0
) -> Soup:
    """Learn one coefficient for each model (a softmax) and the temperature beta (equation 2).

    The defaults of `epochs` and `lr` (AdamW) are appendix I's, which has no batch size. As in
    the authors' code the softmax starts uniform, beta starts at 1, and there is no weight decay.
    Raises ValueError if pool.gradient is None, an option is out of range or the loss is not finite.
    """
    return _learn(pool, "learned", [EVERYTHING], Descent(epochs, lr, batch_size, seed))


def learned_layers(
    pool: Pool, *, epochs: Epochs = 3, lr: LearningRate = 0.1, batch_size: BatchSize = 128, seed: Seed = 0
) -> Soup:
    """Do as `learned`, but with a softmax for each layer (`layer_of`): the paper's "by layer"."""
    groups = list(dict.fromkeys(map(layer_of, pool.state(0))))
    return _learn(pool, "learned_layers", groups, Descent(epochs, lr, batch_size, seed))


def learned_tensors(
    pool: Pool, *, epochs: Epochs = 3, lr: LearningRate = 0.1, batch_size: BatchSize = 128, seed: Seed = 0
) -> Soup:
    """Do as `learned`, but with a softmax for each float tensor (not in the paper)."""
    return _learn(pool, "learned_tensors", float_tensors(pool), Descent(epochs, lr, batch_size, seed))


def learned_free(
    pool: Pool, *, epochs: Epochs = 3, lr: LearningRate = 0.01, batch_size: BatchSize = 128, seed: Seed = 0
) -> Soup:
    """Do as `learned`, but without softmax: K coefficients start at 1/K and can have any value."""
    return _learn(pool, "learned_free", [EVERYTHING], Descent(epochs, lr, batch_size, seed), free=True)


def _learn(pool: Pool, method: str, groups: Sequence[str], by: Descent, free: bool = False) -> Soup:
    gradient = gradient_of(pool, method, by)
    stack = Stack([pool.state(i) for i in range(len(pool))], pool.device)
    start = 1 / len(pool) if free else 0.0
    raw_GK = torch.full((len(groups), len(pool)), start, dtype=torch.float64, requires_grad=True)
    beta = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([raw_GK, beta], lr=by.lr, weight_decay=0.0)
    trace: list[dict[str, Any]] = []
    for epoch, index_B in batches(len(pool.labels_N), by, torch.Generator().manual_seed(by.seed)):
        alpha_GK = raw_GK.clone() if free else raw_GK.softmax(dim=1)
        mixed = stack.mixed(dict(zip(groups, alpha_GK.tolist(), strict=True)))
        loss, by_beta, by_weights = gradient(mixed, beta.item(), index_B)
        trace.append({"step": len(trace), "epoch": epoch, "loss": loss, "beta": beta.item()})
        optimizer.zero_grad()
        torch.autograd.backward(alpha_GK, loss_by_alpha(stack, groups, by_weights))
        beta.grad = torch.tensor(by_beta, dtype=torch.float64)
        optimizer.step()
    rows = (raw_GK if free else raw_GK.softmax(dim=1)).tolist()
    return Soup(
        method=method,
        ingredients=tuple(i.id for i in pool.ingredients),
        hashes=tuple(i.sha256 for i in pool.ingredients),
        coefficients=with_tied(pool.state(0), dict(zip(groups, rows, strict=True)), by_weights),
        beta=beta.item(),
        trace=tuple(trace),
    )


def float_tensors(pool: Pool) -> list[str]:
    """Return the names of the tensors that are averaged, and EVERYTHING for all others."""
    return [*(key for key, tensor in pool.state(0).items() if averaged(tensor)), EVERYTHING]


def gradient_of(pool: Pool, method: str, by: Descent) -> Callable[[State, float, Tensor], Gradient]:
    """Return the function pool.gradient, which then also checks the loss, for gradient descent.

    Raises ValueError if the pool has no such function or an option is out of range; the function
    raises ValueError for a loss that is not finite.
    """
    gradient, steps = pool.gradient, itertools.count()
    if gradient is None:
        raise ValueError(f"{method}: this pool cannot compute gradients of the loss; set Pool.gradient")
    if by.epochs < 1 or by.batch_size < 1 or not 0 < by.lr < math.inf:
        given = f"epochs={by.epochs}, batch_size={by.batch_size}, lr={by.lr}"
        raise ValueError(f"{method}: {given}; expected all of them above 0")

    def checked(state: State, beta: float, index_B: Tensor) -> Gradient:
        step, found = next(steps), gradient(state, beta, index_B)
        if not math.isfinite(found[0]):
            raise ValueError(f"{method}: the loss is {found[0]} at step {step}; lower lr={by.lr}")
        return found

    return checked


def batches(count: int, by: Descent, generator: torch.Generator) -> Iterator[tuple[int, Tensor]]:
    """Yield (epoch, indices of a batch) of `count` images, which each epoch shuffles anew."""
    for epoch in range(by.epochs):
        for index_B in torch.randperm(count, generator=generator).split(by.batch_size):
            yield epoch, index_B


def with_tied(state: State, coefficients: dict[str, list[float]], learned: Container[str]) -> dict[str, list[float]]:
    """Return `coefficients` in which tied tensors have the same row: that of the one in `learned`.

    Tied tensors are one parameter of the model, whose gradient has only one of their names.
    """
    found = dict(coefficients)
    for a, b in checkpoint_of(state).tied.items():
        row = of_group(a if a in learned else b, coefficients)
        if row != of_group(a, found) or row != of_group(b, found):
            found[a] = found[b] = row
    return found


def loss_by_alpha(stack: Stack, groups: Sequence[str], by_weights: Mapping[str, Tensor]) -> Tensor:
    """Return the derivatives of the loss by the coefficients, (G groups, K models) in float64."""
    rows = {group: torch.zeros(len(stack), dtype=torch.float64) for group in groups}
    for key, products_K in stack.products(by_weights).items():
        rows[next(g for g in (key, layer_of(key), EVERYTHING) if g in rows)] += products_K
    return torch.stack(list(rows.values()))
