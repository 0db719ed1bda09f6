"""Shuffles the training images of each epoch, reproducibly from the seed and the epoch's number."""

import hashlib

import torch
from torch import Generator, Tensor


def epoch_order(images: int, *key: object) -> Tensor:
    """Return a random permutation of range(images), seeded by `key` (recipe's seed and epoch)."""
    return torch.randperm(images, generator=seeded(*key))


def seeded(*key: object) -> Generator:
    """Return a PyTorch generator on the CPU, seeded by a hash of `key`."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
