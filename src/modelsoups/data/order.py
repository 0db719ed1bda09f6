"""Shuffles the training images of each epoch, reproducibly from the seed and the epoch's number.

Also says which images of a batch each process trains on (`Share`). Last letters of tensor names: B batch.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Generator, Tensor


def epoch_order(images: int, *key: object) -> Tensor:
    """Return a random permutation of range(images), seeded by `key` (recipe's seed and epoch)."""
    return torch.randperm(images, generator=seeded(*key))


def seeded(*key: object) -> Generator:
    """Return a PyTorch generator on the CPU, seeded by a hash of `key`."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@dataclass(frozen=True)
class Share:
    """The images of a batch that process `rank` of `ranks` trains on, in `parts` micro-batches."""

    rank: int = 0
    ranks: int = 1
    parts: int = 1

    def of(self, index_B: Tensor) -> list[Tensor]:
        """Return this rank's image indices of a batch, one tensor for each micro-batch (part).

        Mixup pairs image i with the i-th last one, so a part has both, at mirrored positions.
        """
        pieces = self.ranks * self.parts
        if pieces == 1:
            return [index_B]
        half, end = len(index_B) // (2 * pieces), len(index_B)
        mine = []
        for p in range(self.rank * self.parts, (self.rank + 1) * self.parts):
            front, back = slice(p * half, (p + 1) * half), slice(end - (p + 1) * half, end - p * half)
            mine.append(torch.cat([index_B[front], index_B[back]]))
        return mine


WHOLE = Share()
