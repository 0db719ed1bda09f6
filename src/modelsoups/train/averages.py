"""Averages of a model's weights during its fine-tuning: EMA and SWA (appendix L, Figures L.1, L.2).

An average is a float32 state dict. Integer buffers (BatchNorm's batch count) are copied from the
model. torch.optim.swa_utils.AveragedModel is not used: with use_buffers=True it fails on integer
buffers; otherwise it does not average BatchNorm's mean and variance.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from modelsoups.recipes.recipe import Recipe

MODEL = "model"  # the name of the trained weights, beside those of their averages


@dataclass
class Ema:
    """An exponential moving average of weights (EMA; Szegedy et al. 2016), updated at each step.

    warmup: the decay is at most (1 + t) / (10 + t) after t updates, as with `num_updates` in
    TensorFlow's ExponentialMovingAverage, which Szegedy et al. used. The average then reaches back
    over about a ninth of the steps so far, until its decay is the smaller one. Without it, a decay of
    0.9999999 leaves 99.8% of the first weights after 20,000 steps.
    """

    decay: float
    count: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)
    warmup: bool = False

    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Set average = decay x average + (1 - decay) x weights; the first call copies weights."""
        decay = min(self.decay, (1 + self.count) / (10 + self.count)) if self.warmup else self.decay
        self.count += 1
        _move(self.state, weights, 1 - decay)


@dataclass
class Swa:
    """The mean of the weights at the ends of epochs (SWA; Izmailov et al. 2018)."""

    begin: float = 0.0  # fraction of the run after which averaging starts: 0.7 for the paper's "SWA 70%"
    count: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)

    def update(self, weights: Mapping[str, Tensor], done: float) -> None:
        """Add weights to the mean if `done`, the completed fraction of training, is >= `begin`."""
        if done + 1e-9 >= self.begin:
            self.count += 1
            _move(self.state, weights, 1 / self.count)


Averages = dict[str, Ema | Swa]


def averages_of(recipe: Recipe) -> Averages:
    """Return the averages that a recipe asks for, by the names of their files, such as ema-0.999."""
    averages: Averages = {f"ema-{_digits(decay)}": Ema(decay, warmup=recipe.ema_warmup) for decay in recipe.ema}
    return averages | {f"swa-{_digits(begin)}": Swa(begin) for begin in recipe.swa}


def _digits(value: float) -> str:
    """Return a number with as many digits as tell it apart; in six digits, 0.9999999 would be 1."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def update_all(averages: Averages, weights: Mapping[str, Tensor], done: float, epoch_ends: bool) -> None:
    """Update each EMA and, at the end of an epoch, each SWA; done: completed fraction of training."""
    for average in averages.values():
        if isinstance(average, Ema):
            average.update(weights)
        elif epoch_ends:
            average.update(weights, done)


def average_name(average: str) -> str:
    """Return a weight average's label in tables: ema-0.999 gives "EMA 0.999", swa-0.7 "SWA 70%"."""
    kind, _, value = average.partition("-")
    swa = f"SWA {100 * float(value):.0f}%" if kind == "swa" and float(value) else "SWA"
    return {"ema": f"EMA {value}", "swa": swa}.get(kind, "no average")


@torch.no_grad()
def _move(average: dict[str, Tensor], weights: Mapping[str, Tensor], share: float) -> None:
    """Set average += share x (weights - average) in place; copy new keys and integer tensors."""
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
