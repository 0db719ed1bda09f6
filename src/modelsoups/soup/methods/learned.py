"""Learned soups (appendix I, equation 2): coefficients by gradient descent on the hold-out.

The paper notes that all models must be in memory at once. They need not: the derivative of the loss with respect to
one coefficient is the inner product of the derivative with respect to the mixed weights and that ingredient's weights,
so a step is one pass to mix, one forward and backward of one model, and one pass of inner products (`stack.py`).

Legend: K ingredients, G layer groups, N hold-out images, B of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modelsoups.checkpoints.states import averaged
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.pool import Pool
from modelsoups.weights.coefficient_gradients import Stack
from modelsoups.weights.state_dicts import EVERYTHING, layer_of


def learned(pool: Pool, *, epochs: int = 3, lr: float = 0.1, batch_size: int = 128, seed: int = 0) -> Soup:
    """One softmax over the ingredients, and the temperature beta (equation 2).

    Three epochs of AdamW at 0.1 as in appendix I; the batch size is not given there. As in the authors' code alpha
    begins uniform and beta at 1, without weight decay. Batches come in the order of a seed.
    Raises ValueError when the pool has no gradient, an option is out of range, or the loss is not finite.
    """
    return _learn(pool, "learned", [EVERYTHING], epochs, lr, batch_size, seed)


def learned_layers(pool: Pool, *, epochs: int = 3, lr: float = 0.1, batch_size: int = 128, seed: int = 0) -> Soup:
    """A softmax for each layer group of `core.weights.layer_of` ("by layer", appendix I); else as `learned`."""
    groups = list(dict.fromkeys(map(layer_of, pool.state(0))))
    return _learn(pool, "learned_layers", groups, epochs, lr, batch_size, seed)


def learned_tensors(pool: Pool, *, epochs: int = 3, lr: float = 0.1, batch_size: int = 128, seed: int = 0) -> Soup:
    """A softmax for each tensor that mixing averages; else as `learned`. The finest of the three, and ours."""
    names = [key for key, tensor in pool.state(0).items() if averaged(tensor)]
    return _learn(pool, "learned_tensors", [*names, EVERYTHING], epochs, lr, batch_size, seed)


def learned_free(pool: Pool, *, epochs: int = 3, lr: float = 0.01, batch_size: int = 128, seed: int = 0) -> Soup:
    """One coefficient an ingredient without constraint, beginning at 1/K: they may be negative and sum to anything."""
    return _learn(pool, "learned_free", [EVERYTHING], epochs, lr, batch_size, seed, free=True)


def _learn(
    pool: Pool,
    method: str,
    groups: Sequence[str],
    epochs: int,
    lr: float,
    batch_size: int,
    seed: int,
    free: bool = False,
) -> Soup:
    gradient = pool.gradient
    if gradient is None:
        raise ValueError(f"{method}: the pool has no gradient")
    if epochs < 1 or batch_size < 1 or not 0 < lr < math.inf:
        raise ValueError(f"{method}: epochs={epochs}, batch_size={batch_size}, lr={lr}; expected all of them above 0")
    stack = Stack([pool.state(i) for i in range(len(pool))], pool.device)
    start = 1 / len(pool) if free else 0.0
    raw_GK = torch.full((len(groups), len(pool)), start, dtype=torch.float64, requires_grad=True)
    beta = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([raw_GK, beta], lr=lr, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    trace: list[dict[str, Any]] = []
    for epoch in range(epochs):
        order_N = torch.randperm(len(pool.labels_N), generator=generator)
        for index_B in torch.split(order_N, batch_size):
            alpha_GK = raw_GK.clone() if free else raw_GK.softmax(dim=1)
            mixed = stack.mixed(dict(zip(groups, alpha_GK.tolist(), strict=True)))
            loss, by_beta, by_weights = gradient(mixed, beta.item(), index_B)
            if not math.isfinite(loss):
                raise ValueError(f"{method}: the loss is {loss} at step {len(trace)}; lower lr={lr}")
            trace.append({"step": len(trace), "epoch": epoch, "loss": loss, "beta": beta.item()})
            optimizer.zero_grad()
            torch.autograd.backward(alpha_GK, _by_alpha(stack, groups, by_weights))
            beta.grad = torch.tensor(by_beta, dtype=torch.float64)
            optimizer.step()
    rows = (raw_GK.detach() if free else raw_GK.detach().softmax(dim=1)).tolist()
    return Soup(
        method=method,
        ingredients=tuple(i.id for i in pool.ingredients),
        hashes=tuple(i.sha256 for i in pool.ingredients),
        coefficients=dict(zip(groups, rows, strict=True)),
        beta=beta.item(),
        trace=tuple(trace),
    )


def _by_alpha(stack: Stack, groups: Sequence[str], by_weights: Mapping[str, Tensor]) -> Tensor:
    """d loss / d alpha_GK, float64: a group's is the sum over its tensors."""
    rows = {group: torch.zeros(len(stack), dtype=torch.float64) for group in groups}
    for key, products_K in stack.products(by_weights).items():
        rows[next(g for g in (key, layer_of(key), EVERYTHING) if g in rows)] += products_K
    return torch.stack(list(rows.values()))
