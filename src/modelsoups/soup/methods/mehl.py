"""MEHL-Soup+: coefficients that sum to one and may be negative, learned block by block.

Li et al., "Learning Scalable Model Soup on a Single GPU" (ECCV 2024, arXiv:2407.03641). The soup so
far is the centre of a hyperplane. For each block of models, gradient descent moves the soup away from
the centre along the directions to the block's models (Algorithm 1):

    theta = centre + sum_i x_i (theta_i - centre) / |theta_i - centre|, for each tensor by itself.

A direction's coefficients sum to zero, so those of the soup always sum to one. Only the centre and
one block have to be in memory, whatever the number of models.

Letters of array names: K ingredients, k models of a block, G groups of tensors.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modelsoups.checkpoints.states import State
from modelsoups.config.soup_options import BatchSize, Block, Epochs, LearningRate, Seed
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.greedy_rule import random_order
from modelsoups.soup.methods.learned import Descent, batches, float_tensors, gradient_of, loss_by_alpha, with_tied
from modelsoups.soup.pool import Gradient, Pool
from modelsoups.weights.coefficient_gradients import Stack
from modelsoups.weights.state_dicts import EVERYTHING, mix

WARMUP = 0.2  # share of a block's steps in which the learning rate rises
MAX_NORM = 1.0  # of the gradient by all weights, to which it is clipped
UNCHANGED = 1e-5  # |theta_i - centre| / |centre| of a tensor that model i has in common with the others


def mehl(
    pool: Pool,
    *,
    epochs: Epochs = 5,
    lr: LearningRate = 0.01,
    batch_size: BatchSize = 128,
    block: Block = 18,
    seed: Seed = 0,
) -> Soup:
    """Learn coefficients for each tensor that sum to one and may be negative (MEHL-Soup+).

    Follows the authors' code, in which a "layer" is one tensor, and its defaults: AdamW from x = 0
    in every block, a learning rate that rises for 20% of the steps and then falls by a cosine, and
    gradients clipped to norm 1. The models pass once, in blocks of `block` in random order; the
    first centre is the mean of the first block. A tensor that a model has in common with the centre
    gets nothing from it (in the authors' code: NaN). Tensors without a gradient, such as BatchNorm's
    running statistics, keep the mean of the first block. Raises ValueError as `learned` does.

    The authors report 81.62% on ImageNet for the 72 released models (`published.later`).
    """
    if block < 1:
        raise ValueError(f"mehl: block={block}; expected a number of models from 1 on")
    by = Descent(epochs, lr, batch_size, seed)
    gradient = gradient_of(pool, "mehl", by)
    order = random_order([i.id for i in pool.ingredients], seed)
    search = _Hyperplane(pool, by, order[:block])
    for start in range(0, len(order), block):
        search.learn(order[start : start + block], gradient)
    return Soup(
        method="mehl",
        ingredients=tuple(i.id for i in pool.ingredients),
        hashes=tuple(i.sha256 for i in pool.ingredients),
        coefficients=with_tied(pool.state(0), search.coefficients, search.learned),
        trace=tuple(search.trace),
    )


class _Hyperplane:
    """The soup so far: its weights (`centre`) and coefficients, which each block of models moves."""

    def __init__(self, pool: Pool, by: Descent, first: Sequence[int]) -> None:
        """Begin with the mean of the models with indices `first`."""
        self.pool, self.by, self.groups = pool, by, float_tensors(pool)
        self.centre = mix([pool.state(i) for i in first], {EVERYTHING: [1 / len(first)] * len(first)})
        self.coefficients_GK = torch.zeros(len(self.groups), len(pool), dtype=torch.float64)
        self.coefficients_GK[:, first] = 1 / len(first)
        self.generator = torch.Generator().manual_seed(by.seed)
        self.trace: list[dict[str, Any]] = []
        self.learned: set[str] = set()  # names of the tensors that have a gradient

    @property
    def coefficients(self) -> dict[str, list[float]]:
        return dict(zip(self.groups, self.coefficients_GK.tolist(), strict=True))

    def learn(self, block: Sequence[int], gradient: Callable[[State, float, Tensor], Gradient]) -> None:
        """Learn x of the models with indices `block`, and move the centre to the soup with them."""
        states = [self.pool.state(i) for i in block]
        stack = Stack([self.centre, *states], self.pool.device)
        x_Gk = torch.zeros(len(self.groups), len(block), dtype=torch.float64, requires_grad=True)
        shares_Gk = per_length_Gk = torch.zeros_like(x_Gk)
        optimizer = torch.optim.AdamW([x_Gk], lr=self.by.lr, weight_decay=0.0)
        count = len(self.pool.labels_N)
        rates = learning_rates(self.by.lr, self.by.epochs * math.ceil(count / self.by.batch_size))
        for rate, (epoch, index_B) in zip(rates, batches(count, self.by, self.generator), strict=True):
            loss, _, by_weights = gradient(stack.mixed(self._rows(shares_Gk)), 1.0, index_B)
            if not bool(per_length_Gk.any()):  # the first step: now it is known which tensors have a gradient
                per_length_Gk = self._per_length(states, by_weights)
            self.learned |= by_weights.keys()
            self.trace.append({"step": len(self.trace), "epoch": epoch, "loss": loss})
            products_Gk = loss_by_alpha(stack, self.groups, by_weights)  # column 0: of the centre
            x_Gk.grad = clipping(by_weights) * per_length_Gk * (products_Gk[:, 1:] - products_Gk[:, :1])
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
            shares_Gk = x_Gk.detach() * per_length_Gk
        self.centre = {key: tensor.cpu() for key, tensor in stack.mixed(self._rows(shares_Gk)).items()}
        self.coefficients_GK *= 1 - shares_Gk.sum(dim=1, keepdim=True)
        self.coefficients_GK[:, block] += shares_Gk

    def _rows(self, shares_Gk: Tensor) -> dict[str, list[float]]:
        """Return by group the coefficients of the centre and the block's models, which sum to one."""
        rows_GK = torch.cat([1 - shares_Gk.sum(dim=1, keepdim=True), shares_Gk], dim=1)
        return dict(zip(self.groups, rows_GK.tolist(), strict=True))

    def _per_length(self, states: Sequence[State], keys: Iterable[str]) -> Tensor:
        """Return 1 / |theta_i - centre| of tensors `keys`, (G, k); 0 for other and unchanged tensors."""
        found_Gk = torch.zeros(len(self.groups), len(states), dtype=torch.float64)
        places = {key: place for place, key in enumerate(self.groups)}
        for key in keys:
            centre = self.centre[key].double()
            for k, state in enumerate(states):
                length = float((state[key].double() - centre).norm())
                if length > UNCHANGED * float(centre.norm()):
                    found_Gk[places[key], k] = 1 / length
        return found_Gk


def learning_rates(highest: float, steps: int) -> list[float]:
    """Return the learning rate of each step: a linear rise to `highest`, then half a cosine."""
    rise = int(WARMUP * steps)
    fall = [highest * (1 + math.cos(math.pi * step / (steps - rise))) / 2 for step in range(steps - rise)]
    return [highest * (step + 1) / rise for step in range(rise)] + fall


def clipping(gradients: Mapping[str, Tensor]) -> float:
    """Return the factor that clips gradients to MAX_NORM, as torch's `clip_grad_norm_` does."""
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients.values()))
    return min(1.0, MAX_NORM / (norm + 1e-6))
