"""The pure pieces of a training step: schedule, targets, mixup, order of the data.

Legend: B images of a batch, C classes, N images of the training set, H height, W width.
"""

from __future__ import annotations

import hashlib
import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def lr_factor(step: int, total: int, warmup: int, schedule: str) -> float:
    """Share of the peak learning rate at a step, counted from 0: linear warm-up, then cosine to 0, or constant.

    Warm-up lasts `warmup` steps, but at most a tenth of the run, so that short runs train at all.
    """
    warmup = min(warmup, total // 10)
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def soft_targets(labels_B: Tensor, classes: int, smoothing: float) -> Tensor:
    """targets_BC: 1 - smoothing on the label, and smoothing spread evenly over all classes."""
    return F.one_hot(labels_B, classes).float() * (1 - smoothing) + smoothing / classes


def mixup(images_BCHW: Tensor, targets_BC: Tensor, lam: float) -> tuple[Tensor, Tensor]:
    """lam of each image and target, 1 - lam of the one as far from the other end of the batch (as timm pairs them)."""
    return (
        lam * images_BCHW + (1 - lam) * images_BCHW.flip(0),
        lam * targets_BC + (1 - lam) * targets_BC.flip(0),
    )


def mixup_lambda(alpha: float, *key: object) -> float:
    """One draw from Beta(alpha, alpha) that is a function of alpha and key alone."""
    generator = seeded(alpha, *key)
    one, two = (torch._standard_gamma(torch.tensor(alpha, dtype=torch.float64), generator=generator) for _ in range(2))
    total = float(one + two)
    return float(one) / total if total > 0 else 0.5  # both underflow for a tiny alpha


def epoch_order(images: int, *key: object) -> Tensor:
    """A permutation of the training set that is a function of its size and key (recipe seed, epoch) alone."""
    return torch.randperm(images, generator=seeded(*key))


def seeded(*key: object) -> Generator:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
