"""The optimizers of the paper's recipes as PyTorch has them (appendix F; Adafactor for BASIC and ViT-G), and SAM.

Adafactor is that of Shazeer and Stern 2018, which the paper cites, as torch.optim has it: its step is scaled by the
root mean square of each tensor, so that a learning rate means less than in Adam. timm's AdafactorBigVision, the variant
of Zhai et al. for ViT-G, has no such scaling. It waits for a GPU once a tensor; the others never do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

Make = Callable[[list[Parameter], float, float], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {  # of parameters, learning rate, weight decay
    "adamw": lambda p, lr, decay: torch.optim.AdamW(p, lr, weight_decay=decay, fused=_fused(p)),
    "adam": lambda p, lr, decay: torch.optim.Adam(p, lr, weight_decay=decay, fused=_fused(p)),
    "rmsprop": lambda p, lr, decay: torch.optim.RMSprop(p, lr, weight_decay=decay),
    "sgd": lambda p, lr, decay: torch.optim.SGD(p, lr, momentum=0.9, weight_decay=decay, fused=_fused(p)),
    "adafactor": lambda p, lr, decay: torch.optim.Adafactor(p, lr, weight_decay=decay),
}


def _fused(parameters: list[Parameter]) -> bool | None:
    """One kernel for all tensors on a GPU; on a CPU PyTorch's default."""
    return True if parameters and parameters[0].is_cuda else None


def restore(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load what an optimizer held, maybe on another kind of device: how it computes stays this optimizer's own."""
    own = {key: optimizer.defaults[key] for key in ("fused", "foreach") if key in optimizer.defaults}
    groups = [
        {**group, **{key: value for key, value in own.items() if key in group}} for group in state["param_groups"]
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})


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
