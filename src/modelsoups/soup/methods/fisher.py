"""Fisher-weighted averaging (Matena and Raffel 2022, arXiv:2111.09832): every weight where the data pins it down.

Legend: B images of a batch, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from modelsoups.checkpoints.states import State
from modelsoups.soup.holdout import Inputs, call_with, each

FLOOR = 1e-6  # the least Fisher information: where no model has any, all count alike


def diagonal(
    model: nn.Module, state: State, batches: Iterable[Inputs], *, exact: bool = False, seed: int = 0
) -> dict[str, Tensor]:
    """F = E_x E_{y ~ p(y|x)} (d log p(y|x) / d theta)^2 of the model's parameters, in float32 (equation 4's diagonal).

    y is drawn from the model's own prediction, one an input, as the paper does where there are many classes; exact sums
    over all classes, weighted by p. One forward and one backward (exact: C) per input. Raises ValueError without any.
    """
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    moved = {key: tensor.detach().to(device) for key, tensor in state.items()}
    names = [key for key, _ in model.named_parameters()]
    weights = [moved[key].requires_grad_() for key in names]
    total, count = [torch.zeros_like(w, dtype=torch.float32) for w in weights], 0
    for inputs_B in batches:
        for one in each(inputs_B):
            with torch.enable_grad():
                log_p_C = call_with(model, moved, one)[0].log_softmax(dim=0)
            p_C = log_p_C.detach().exp()
            drawn = torch.multinomial(p_C.cpu(), 1, generator=generator).tolist()
            for c in range(len(p_C)) if exact else drawn:
                slopes = torch.autograd.grad(log_p_C[c], weights, retain_graph=True, allow_unused=True)
                share = float(p_C[c]) if exact else 1.0
                for sum_, slope in zip(total, slopes, strict=True):
                    if slope is not None:
                        sum_.addcmul_(slope.float(), slope.float(), value=share)
            count += 1
    if not count:
        raise ValueError("fisher: no inputs to estimate the Fisher information with")
    return {key: (sum_ / count).cpu() for key, sum_ in zip(names, total, strict=True)}


class Merge:
    """sum_i lambda_i F_i theta_i / sum_i lambda_i F_i, one model at a time; two float64 sums in memory."""

    def __init__(self) -> None:
        self.above: dict[str, Tensor] = {}
        self.below: dict[str, Tensor] = {}
        self.dtypes: dict[str, torch.dtype] = {}

    def add(self, state: State, fisher: Mapping[str, Tensor], weight: float) -> None:
        for key, information in fisher.items():
            precision = information.double().clamp_min(FLOOR) * weight
            self.dtypes[key] = state[key].dtype
            zero = torch.zeros_like(precision)
            self.above[key] = self.above.get(key, zero) + precision * state[key].double()
            self.below[key] = self.below.get(key, zero) + precision

    def merged(self) -> dict[str, Tensor]:
        return {key: (self.above[key] / self.below[key]).to(self.dtypes[key]) for key in self.above}


def check_weights(weights: Sequence[float], count: int) -> None:
    if len(weights) != count or not all(w > 0 for w in weights):
        raise ValueError(f"fisher: weights={list(weights)}; expected {count} numbers above 0")
