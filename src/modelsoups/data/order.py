"""The order of the training images, and random numbers that are a function of their arguments alone."""

from __future__ import annotations

import hashlib

import torch
from torch import Generator, Tensor


def epoch_order(images: int, *key: object) -> Tensor:
    """A permutation of the training set that is a function of its size and key (recipe seed, epoch) alone."""
    return torch.randperm(images, generator=seeded(*key))


def seeded(*key: object) -> Generator:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
