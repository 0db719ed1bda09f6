"""Sums of blocks of tensors in reused memory, with the bits of `core.weights.TensorSum`.

A block is as many bytes as fit into the processor's cache: it is read, hashed and added while it is there. Numbers of
at most 32 bits are added in float64 by numpy, which widens them on the way; everything else goes to TensorSum.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from modelsoups.core.weights import TensorSum


class Total(Protocol):
    """A weighted sum of blocks under way."""

    def add(self, block: memoryview, weight: float) -> None: ...

    def divided(self, by: float) -> Tensor: ...


class Room:
    """A thread's memory for blocks of at most so many elements; one sum at a time."""

    def __init__(self, elements: int) -> None:
        self.read = memoryview(bytearray(16 * elements))
        self.total, self.term = np.empty(elements), np.empty(elements)
        self.wide = torch.empty(elements)

    def begin(self, dtype: torch.dtype, count: int) -> Total:
        """An empty sum of blocks of so many elements of a dtype."""
        if dtype.is_floating_point and dtype.itemsize <= 4:
            return _Widened(self, dtype, count)
        return _Other(dtype)


class _Widened:
    def __init__(self, room: Room, dtype: torch.dtype, count: int) -> None:
        self.total, self.term, self.wide = room.total[:count], room.term[:count], room.wide[:count]
        self.dtype, self.empty = dtype, True

    def add(self, block: memoryview, weight: float) -> None:
        numbers: Any
        if self.dtype == torch.float32:
            numbers = np.frombuffer(block, np.float32)
        else:  # float32 holds the narrower ones exactly
            numbers = self.wide.copy_(_tensor(block, self.dtype)).numpy()
        if self.empty:
            np.multiply(numbers, weight, out=self.total, dtype=np.float64)
        elif weight == 1:
            np.add(self.total, numbers, out=self.total)
        else:
            np.add(self.total, np.multiply(numbers, weight, out=self.term, dtype=np.float64), out=self.total)
        self.empty = False

    def divided(self, by: float) -> Tensor:
        total = torch.from_numpy(self.total)
        if math.frexp(by)[0] == 0.5:  # a power of two: the same bits, in less than half of the time
            return total.mul_(1 / by).to(self.dtype)
        return total.div_(by).to(self.dtype)


class _Other:
    def __init__(self, dtype: torch.dtype) -> None:
        self.total, self.dtype = TensorSum(), dtype

    def add(self, block: memoryview, weight: float) -> None:
        tensor = _tensor(block, self.dtype)
        self.total.add(tensor.clone() if self.total.first is None else tensor, weight)  # the sum keeps the first

    def divided(self, by: float) -> Tensor:
        return self.total.divided(by)


def is_finite(mixed: Tensor) -> bool:
    """Whether a block that is not empty holds neither NaN nor infinity."""
    if not mixed.dtype.is_floating_point:
        return True
    if mixed.dtype.itemsize >= 4 and math.isfinite(float(mixed @ mixed)):
        return True  # in a third of the time; what follows is for large numbers, whose squares overflow
    low, high = torch.aminmax(mixed if mixed.dtype.itemsize > 1 else mixed.float())
    return math.isfinite(float(low)) and math.isfinite(float(high))


def _tensor(block: memoryview, dtype: torch.dtype) -> Tensor:
    numbers = np.frombuffer(block, np.uint8)
    return torch.from_numpy(numbers if numbers.flags.writeable else numbers.copy()).view(dtype)
