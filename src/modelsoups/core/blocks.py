"""Sums and inner products of blocks of tensors in reused memory; sums have the bits of `core.weights.TensorSum`.

A block is as many bytes as fit into the processor's cache, with those of a few more rows: it is read, hashed and added
while it is there. Numbers of at most 32 bits are added in float64 by `core.kernels`; everything else goes to TensorSum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelsoups.core.stored import Block
from modelsoups.core.weights import TensorSum

ROWS = 8  # that `add` and `products` take at a time


class Total(Protocol):
    """A weighted sum of blocks under way."""

    def add(self, blocks: Sequence[Block], weights: Sequence[float]) -> None:
        """Add blocks of at most ROWS ingredients, in this order."""

    def divided(self, by: float) -> tuple[Tensor, bool]:
        """The sum / by, in the blocks' dtype, and whether all of it is finite."""


class Room:
    """A thread's memory for blocks of at most so many elements; one sum at a time, mixed ones in the same memory."""

    def __init__(self, elements: int) -> None:
        from modelsoups.core import kernels  # half a second, which not everyone who imports this needs

        assert kernels.ROWS == ROWS
        self.kernels = kernels
        self.total, self.mixed = np.empty(elements), np.empty(elements, np.float32)
        self.nought, self.wide = np.zeros(elements, np.float32), torch.empty(ROWS, elements)

    def begin(self, dtype: torch.dtype, count: int) -> Total:
        """An empty sum of blocks of so many elements of a dtype."""
        return _Widened(self, dtype, count) if _is_narrow(dtype) else _Other(dtype)

    def products(self, by_n: Tensor, blocks: Sequence[Block], dtype: torch.dtype) -> Sequence[float]:
        """<by, block> of at most ROWS ingredients, by being float32 (float64 for such blocks), the sum float64."""
        if not _is_narrow(dtype):
            return [float(tensor_of(block, dtype).double() @ by_n.double()) for block in blocks]
        found: tuple[float, ...] = self.kernels.products(by_n.numpy(), self.rows(blocks, dtype, len(by_n)))
        return found[: len(blocks)]

    def rows(self, blocks: Sequence[Block], dtype: torch.dtype, count: int) -> tuple[NDArray[np.float32], ...]:
        """ROWS rows of float32, which holds narrower numbers exactly; those that are missing are zeros."""
        rows = [
            block if block.dtype == np.float32 else self.wide[position, :count].copy_(tensor_of(block, dtype)).numpy()
            for position, block in enumerate(blocks)
        ]
        return (*rows, *[self.nought[:count]] * (ROWS - len(rows)))


class _Widened:
    def __init__(self, room: Room, dtype: torch.dtype, count: int) -> None:
        self.room, self.dtype, self.count, self.empty = room, dtype, count, True
        self.total = room.total[:count]

    def add(self, blocks: Sequence[Block], weights: Sequence[float]) -> None:
        missing = [-0.0] * (ROWS - len(blocks))
        rows = self.room.rows(blocks, self.dtype, self.count)
        self.room.kernels.add_rows(self.total, rows, (*map(float, weights), *missing), self.empty)
        self.empty = False

    def divided(self, by: float) -> tuple[Tensor, bool]:
        exact = math.frexp(by)[0] == 0.5  # of a power of two: the same bits, in a quarter of the time
        if self.dtype == torch.float32:
            mixed = self.room.mixed[: self.count]
            finite = self.room.kernels.divide(mixed, self.total, by, exact)
            return torch.from_numpy(mixed), finite
        total = torch.from_numpy(self.total)
        narrow = (total.mul_(1 / by) if exact else total.div_(by)).to(self.dtype)
        return narrow, bool(narrow.float().isfinite().all())  # there is no isfinite of float8


class _Other:
    def __init__(self, dtype: torch.dtype) -> None:
        self.total, self.dtype = TensorSum(), dtype

    def add(self, blocks: Sequence[Block], weights: Sequence[float]) -> None:
        for block, weight in zip(blocks, weights, strict=True):
            self.total.add(tensor_of(block, self.dtype), weight)

    def divided(self, by: float) -> tuple[Tensor, bool]:
        mixed = self.total.divided(by)
        return mixed, bool(mixed.isfinite().all())


def _is_narrow(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point and dtype.itemsize <= 4


def tensor_of(block: Block, dtype: torch.dtype) -> Tensor:
    """The numbers of a block, in its memory."""
    return torch.from_numpy(block.reshape(-1).view(np.uint8)).view(dtype)
