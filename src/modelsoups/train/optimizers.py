"""Optimizers (paper: appendix F; Adafactor for BASIC and ViT-G), learning-rate schedules, and SAM.

"adafactor" is torch.optim.Adafactor (Shazeer and Stern 2018). It scales each tensor's step by the
root mean square of the tensor, so its learning rates are not comparable with Adam's. It waits for
the GPU once per tensor. timm's AdafactorBigVision (Zhai et al., for ViT-G) does not scale steps.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

Make = Callable[[list[Parameter], float, float], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {  # arguments: parameters, learning rate, weight decay
    "adamw": lambda p, lr, decay: torch.optim.AdamW(p, lr, weight_decay=decay, fused=_fused(p)),
    "adam": lambda p, lr, decay: torch.optim.Adam(p, lr, weight_decay=decay, fused=True),
    "rmsprop": lambda p, lr, decay: torch.optim.RMSprop(p, lr, weight_decay=decay),
    "sgd": lambda p, lr, decay: torch.optim.SGD(p, lr, momentum=0.9, weight_decay=decay, fused=_fused(p)),
    "adafactor": lambda p, lr, decay: torch.optim.Adafactor(p, lr, weight_decay=decay),
}


def _fused(parameters: list[Parameter]) -> bool | None:
    """Return the optimizers' option `fused`: True on a GPU, None (PyTorch's default) on a CPU.

    Adam is fused on a CPU too: for MiniLM five times as fast. For AdamW this would change the last
    bits of the committed results.
    """
    return True if parameters and parameters[0].is_cuda else None


def trained_parameters(model: nn.Module, trained: str) -> list[Parameter]:
    """Freeze the head unless trained="all", and return the parameters that are trained.

    Raises ValueError if the model has no head to freeze.
    """
    head = getattr(model, "head", None)
    if head is not None:
        head.requires_grad_(trained == "all")  # also undoes what an earlier run in this process set
    elif trained != "all":
        raise ValueError(f"recipe.trained={trained}: this model has no head; set recipe.trained=all")
    return [p for p in model.parameters() if p.requires_grad]


def restore(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a saved state into the optimizer, which keeps its own `fused` and `foreach` options."""
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
    """Shift the parameters by rho g / |g| (g: their gradient) in the with block; then undo it.

    This is sharpness-aware minimization (SAM; Foret et al. 2021, equation 2), with |g| over all
    parameters. Compute the gradient anew inside the block, and step the optimizer after it. If g is
    averaged over the processes, all shift equally; otherwise each by its own g (appendix J.2.3).
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
    """Return the fraction of the peak learning rate at a step (from 0): warm-up, then `schedule`.

    Warm-up takes at most 1/10 of `total` steps. per_epoch: steps per epoch, for cosine_restarts.
    """
    warmup = min(warmup, total // 10)
    if step < warmup:
        return (step + 1) / warmup
    return SCHEDULES[schedule]((step - warmup) / (total - warmup), step % per_epoch / per_epoch)
