"""Averages of the weights during one run: EMA and SWA (appendix L, Figures L.1 and L.2).

An average is a float32 state dict. Integer buffers (BatchNorm's count) are not averaged but copied
from the model. torch.optim.swa_utils.AveragedModel cannot do this: with use_buffers it fails on
integer buffers, and without it, it leaves out BatchNorm's statistics.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Ema:
    """An exponential moving average (Szegedy et al. 2016): a step multiplies it by `decay`."""

    decay: float
    count: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)

    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Add the weights after a step. The average starts as the first weights."""
        self.count += 1
        _move(self.state, weights, 1 - self.decay)


@dataclass
class Swa:
    """A stochastic weight average (Izmailov et al. 2018): the mean of weights after epochs."""

    begin: float = 0.0  # fraction of the run after which averaging starts: 0.7 for the paper's "SWA 70%"
    count: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)

    def update(self, weights: Mapping[str, Tensor], done: float) -> None:
        """Add the weights after an epoch, unless the fraction `done` is below `begin`."""
        if done + 1e-9 >= self.begin:
            self.count += 1
            _move(self.state, weights, 1 / self.count)


def average_name(average: str) -> str:
    """Return an average's name in tables; `average` is a file name: ema-0.999, swa-0 or swa-0.7."""
    kind, _, value = average.partition("-")
    swa = f"SWA {100 * float(value):.0f}%" if kind == "swa" and float(value) else "SWA"
    return {"ema": f"EMA {value}", "swa": swa}.get(kind, "no average")


@torch.no_grad()
def _move(average: dict[str, Tensor], weights: Mapping[str, Tensor], share: float) -> None:
    """Move an average towards the weights by the fraction `share` of the distance."""
    moving = []
    for key, tensor in weights.items():
        if not tensor.is_floating_point():
            average[key] = tensor.detach().clone()
        elif key not in average:
            average[key] = tensor.detach().float().clone()
        else:
            moving.append(key)
    if moving:  # a few GPU kernels for all tensors, as in torch.optim.swa_utils
        targets = [weights[key].detach().float() for key in moving]
        torch._foreach_lerp_([average[key] for key in moving], targets, share)
