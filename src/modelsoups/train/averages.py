"""Averages of the weights along one run: EMA and SWA (appendix L, Figures L.1 and L.2).

An average is a state dict of its own, kept in float32 beside the model; integer buffers (BatchNorm's count) are the
model's latest, since an average of them means nothing. torch.optim.swa_utils.AveragedModel is not used: with
use_buffers it averages integer buffers too, which fails, and without it leaves BatchNorm's statistics out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Ema:
    """Exponential moving average (Szegedy et al. 2016): after each step, decay of the old and 1 - decay of the new."""

    decay: float
    count: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)

    def update(self, model: Mapping[str, Tensor]) -> None:
        """Take in the weights after a step; the first time they are taken as they are."""
        self.count += 1
        _move(self.state, model, 1 - self.decay)


@dataclass
class Swa:
    """Stochastic weight averaging (Izmailov et al. 2018): the mean of the weights after each epoch.

    begin is the share of the run after which averaging starts: 0 for SWA, 0.7 for the paper's "SWA 70%".
    """

    begin: float = 0.0
    count: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)

    def update(self, model: Mapping[str, Tensor], done: float) -> None:
        """Take in the weights after an epoch, when `done` of the run (0 to 1) lies behind."""
        if done + 1e-9 >= self.begin:
            self.count += 1
            _move(self.state, model, 1 / self.count)


def average_name(average: str) -> str:
    """An average along a run by the name of its file: ema-0.999, swa-0 (every epoch), swa-0.7; none is no average."""
    kind, _, value = average.partition("-")
    if kind == "ema":
        return f"EMA {value}"
    if kind == "swa":
        return f"SWA {100 * float(value):.0f}%" if float(value) else "SWA"
    return "no average"


@torch.no_grad()
def _move(average: dict[str, Tensor], model: Mapping[str, Tensor], share: float) -> None:
    """Move an average towards the model by a share of the way."""
    moving = [key for key, tensor in model.items() if key in average and tensor.is_floating_point()]
    for key, tensor in model.items():
        if key not in average or not tensor.is_floating_point():
            average[key] = tensor.detach().float().clone() if tensor.is_floating_point() else tensor.detach().clone()
    if moving:  # a few kernels for all tensors on a GPU, as in torch.optim.swa_utils
        torch._foreach_lerp_([average[k] for k in moving], [model[k].detach().float() for k in moving], share)
