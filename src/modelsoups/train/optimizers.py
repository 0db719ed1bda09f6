"""The optimizers of the paper's recipes (appendix F; Adafactor for BASIC and ViT-G), schedules, SAM.

Adafactor is torch.optim's version (Shazeer and Stern 2018, cited by the paper). It scales its step by
the root mean square of each tensor, so learning rates are not comparable with Adam's, and it waits for
a GPU once per tensor. timm's AdafactorBigVision (Zhai et al., for ViT-G) has no such scaling.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

Make = Callable[[list[Parameter], float, float], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {  # arguments: parameters, learning rate, weight decay
    "adamw": lambda p, lr, decay: torch.optim.AdamW(p, lr, weight_decay=decay, fused=_fused(p)),
    "adam": lambda p, lr, decay: torch.optim.Adam(p, lr, weight_decay=decay, fused=_fused(p)),
    "rmsprop": lambda p, lr, decay: torch.optim.RMSprop(p, lr, weight_decay=decay),
    "sgd": lambda p, lr, decay: torch.optim.SGD(p, lr, momentum=0.9, weight_decay=decay, fused=_fused(p)),
    "adafactor": lambda p, lr, decay: torch.optim.Adafactor(p, lr, weight_decay=decay),
}


def _fused(parameters: list[Parameter]) -> bool | None:
    """Return the `fused` option: True (one kernel) on a GPU, PyTorch's default on a CPU."""
    return True if parameters and parameters[0].is_cuda else None


def restore(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimizer's state from any device, but not its fused and foreach options."""
    groups = []
    for saved in state["param_groups"]:
        group = dict(saved)
        for key in {"fused", "foreach"} & optimizer.defaults.keys() & group.keys():
            group[key] = optimizer.defaults[key]
        groups.append(group)
    optimizer.load_state_dict({**state, "param_groups": groups})


@contextmanager
@torch.no_grad()
def sharpened(parameters: Iterable[Parameter], rho: float) -> Iterator[None]:
    """Inside the with block, move the parameters by rho along their gradient g; restore them at exit.

    Sharpness-aware minimization (Foret et al. 2021, equation 2): e(w) = rho g / |g|, with |g| over
    all parameters. The optimizer then steps by the gradient from inside the block. All ranks move
    equally if their gradients were averaged before (appendix J.2.3); otherwise each by its own.
    """
    moved = [p for p in parameters if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(_grad(p)) for p in moved]))
    before = [p.detach().clone() for p in moved]
    scale = rho / (norm + 1e-12)
    for p in moved:
        p.addcmul_(_grad(p), scale)
    for p in moved:
        p.grad = None
    with torch.enable_grad():
        yield
    for p, old in zip(moved, before, strict=True):
        p.copy_(old)


def _grad(p: Parameter) -> Tensor:
    assert p.grad is not None
    return p.grad


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


# Fraction of the peak learning rate, given the completed fractions of the run and the epoch (L.1).
# Restarts (SGDR, Loshchilov and Hutter 2016) are at each epoch, so that SWA averages the weights
# at the end of each cycle. Linear decay is as for BERT (J.2.4).
SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "cosine": lambda run, epoch: _cosine(run),
    "cosine_restarts": lambda run, epoch: _cosine(epoch),
    "linear": lambda run, epoch: 1 - run,
    "constant": lambda run, epoch: 1.0,
}


def lr_factor(step: int, total: int, warmup: int, schedule: str, per_epoch: int = 1) -> float:
    """Return the fraction of the peak learning rate at a step (from 0): linear warm-up, then a schedule.

    Warm-up takes at most a tenth of the run. per_epoch: steps per epoch, used by restarts.
    """
    warmup = min(warmup, total // 10)
    if step < warmup:
        return (step + 1) / warmup
    return SCHEDULES[schedule]((step - warmup) / (total - warmup), step % per_epoch / per_epoch)
