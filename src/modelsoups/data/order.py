"""The order of the training images in each epoch, from a generator seeded only by its arguments."""

import hashlib

import torch
from torch import Generator, Tensor


def epoch_order(images: int, *key: object) -> Tensor:
    """Return a permutation of `images` indices that depends only on key (recipe seed, epoch)."""
    return torch.randperm(images, generator=seeded(*key))


def seeded(*key: object) -> Generator:
    """Return a CPU generator whose seed is a hash of key."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
