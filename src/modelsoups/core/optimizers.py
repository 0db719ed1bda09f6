"""The optimizers of the paper's recipes as PyTorch has them (appendix F; Adafactor for BASIC and ViT-G), and SAM."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import Parameter

Make = Callable[[list[Parameter], float, float], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {  # of parameters, learning rate, weight decay
    "adamw": lambda p, lr, decay: torch.optim.AdamW(p, lr, weight_decay=decay),
    "adam": lambda p, lr, decay: torch.optim.Adam(p, lr, weight_decay=decay),
    "rmsprop": lambda p, lr, decay: torch.optim.RMSprop(p, lr, weight_decay=decay),
    "sgd": lambda p, lr, decay: torch.optim.SGD(p, lr, momentum=0.9, weight_decay=decay),
    "adafactor": lambda p, lr, decay: torch.optim.Adafactor(p, lr, weight_decay=decay),
}


@contextmanager
@torch.no_grad()
def sharpened(parameters: Iterable[Parameter], rho: float) -> Iterator[None]:
    """Within, the parameters stand rho up the gradient that they hold; after it, where they were, to the bit.

    Sharpness-aware minimization (Foret et al. 2021, equation 2): e(w) = rho g / |g|, with |g| over all parameters. The
    gradient of the loss taken within is the one to step with. With several processes the perturbation is synchronized
    when the gradients are averaged over them before (appendix J.2.3), and not when each uses its own.
    """
    moved = [p for p in parameters if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(_grad(p)) for p in moved]))
    before = [p.detach().clone() for p in moved]
    for p in moved:
        p.add_(_grad(p), alpha=rho / (float(norm) + 1e-12))
    for p in moved:
        p.grad = None
    with torch.enable_grad():
        yield
    for p, old in zip(moved, before, strict=True):
        p.copy_(old)


def _grad(p: Parameter) -> Tensor:
    assert p.grad is not None
    return p.grad
