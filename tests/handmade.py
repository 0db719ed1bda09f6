"""Pools small enough to work out by hand, and a small network for gradients.

A handmade model *is* its hold-out logits: f(x_n; theta) = theta_n. There are two classes, every label is 0, and the
logits of image n are (margin_n, 0), so image n is right when its margin is positive, and a soup of models has the mean
of their margins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelsoups.soup.coefficients import Ingredient
from modelsoups.soup.methods import Pool, model_gradient

State = dict[str, Tensor]


def margins(*values: float) -> State:
    return {"margin": torch.tensor(values, dtype=torch.float32)}


def logits_of(state: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([state["margin"], torch.zeros_like(state["margin"])], dim=1)


def margin_pool(*models: Sequence[float], names: str = "abcdefghijklmnopqrstuvwxyz") -> Pool:
    states = [margins(*m) for m in models]
    labels_N = torch.zeros(len(models[0]), dtype=torch.long)

    def gradient(state: Mapping[str, Tensor], beta: float, index_B: Tensor) -> tuple[float, float, State]:
        weights = {k: v.clone().requires_grad_() for k, v in state.items()}
        scale = torch.tensor(beta, requires_grad=True)
        loss = F.cross_entropy(scale * logits_of(weights)[index_B], labels_N[index_B])
        by_beta, *by_weights = torch.autograd.grad(loss, [scale, *weights.values()])
        return float(loss.detach()), float(by_beta), dict(zip(weights, by_weights, strict=True))

    return Pool(
        ingredients=tuple(ingredient(name) for name, _ in zip(names, models, strict=False)),
        logits=tuple(logits_of(s) for s in states),
        labels_N=labels_N,
        state=states.__getitem__,
        evaluate=logits_of,
        gradient=gradient,
    )


def ingredient(name: str) -> Ingredient:
    return Ingredient(name, f"{name}.safetensors", f"hash of {name}", None)


class Network(nn.Module):
    """Two blocks with a batch norm between them, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(3, 5), nn.Linear(5, 5)])
        self.norm = nn.BatchNorm1d(5)
        self.head = nn.Linear(5, 4)
        self.double().eval()

    def forward(self, x_BD: Tensor) -> Tensor:
        for block in self.blocks:
            x_BD = torch.tanh(self.norm(block(x_BD)))
        return self.head(x_BD)


def network_states(count: int) -> list[State]:
    """Random weights; running statistics too, since mixing mixes them."""
    generator = torch.Generator().manual_seed(0)
    states = []
    for number in range(count):
        shapes = Network().state_dict()
        state = {k: torch.rand(v.shape, generator=generator, dtype=v.dtype) + 0.1 for k, v in shapes.items() if v.ndim}
        states.append({**state, "norm.num_batches_tracked": torch.tensor(number)})
    return states


def network_pool(count: int = 3, images: int = 40) -> Pool:
    states, model = network_states(count), Network()
    generator = torch.Generator().manual_seed(1)
    x_ND = torch.randn(images, 3, generator=generator, dtype=torch.float64)
    labels_N = torch.randint(4, (images,), generator=generator)

    def evaluate(state: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            return torch.func.functional_call(model, dict(state), (x_ND,))

    return Pool(
        ingredients=tuple(ingredient(str(i)) for i in range(count)),
        logits=tuple(evaluate(s) for s in states),
        labels_N=labels_N,
        state=states.__getitem__,
        evaluate=evaluate,
        gradient=lambda state, beta, index_B: model_gradient(model, state, beta, x_ND[index_B], labels_N[index_B]),
    )
