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
    """A weighted sum of blocks under way; memory is where a block may be read to."""

    memory: memoryview

    def add(self, block: memoryview, weight: float) -> None: ...

    def divided(self, by: float) -> Tensor: ...


class Room:
    """A thread's memory for blocks of at most so many elements; one sum at a time, mixed ones in the same memory.

    Views of it are made once: Python's own work between two operations is what keeps threads from running side by side.
    """

    def __init__(self, elements: int) -> None:
        self._read = memoryview(bytearray(16 * elements))
        self.total, self.term = np.empty(elements), np.empty(elements)
        self.wide, self.mixed = torch.empty(elements), np.empty(elements, np.float32)
        self._sums: dict[tuple[torch.dtype, int], _Widened] = {}

    def begin(self, dtype: torch.dtype, count: int) -> Total:
        """An empty sum of blocks of so many elements of a dtype."""
        if not dtype.is_floating_point or dtype.itemsize > 4:
            return _Other(self._read[: count * dtype.itemsize], dtype)
        if (dtype, count) not in self._sums:
            self._sums[dtype, count] = _Widened(self, self._read[: count * dtype.itemsize], dtype, count)
        return self._sums[dtype, count].emptied()


class _Widened:
    def __init__(self, room: Room, memory: memoryview, dtype: torch.dtype, count: int) -> None:
        self.memory, self.dtype, self.empty = memory, dtype, True
        self.total, self.term, self.wide = room.total[:count], room.term[:count], room.wide[:count]
        self.mixed = room.mixed[:count]
        self._total, self._mixed = torch.from_numpy(self.total), torch.from_numpy(self.mixed)
        self._numbers = np.frombuffer(memory, np.float32) if dtype == torch.float32 else None

    def emptied(self) -> _Widened:
        self.empty = True
        return self

    def add(self, block: memoryview, weight: float) -> None:
        numbers: Any = self._numbers
        if self.dtype != torch.float32:  # which holds the narrower ones exactly
            numbers = self.wide.copy_(_tensor(block, self.dtype)).numpy()
        elif block is not self.memory:
            numbers = np.frombuffer(block, np.float32)
        if self.empty:
            np.multiply(numbers, weight, out=self.total, dtype=np.float64)
            self.empty = False
        elif weight == 1:
            np.add(self.total, numbers, out=self.total)
        else:
            np.add(self.total, np.multiply(numbers, weight, out=self.term, dtype=np.float64), out=self.total)

    def divided(self, by: float) -> Tensor:
        exact = math.frexp(by)[0] == 0.5  # of a power of two: the same bits, in less than half of the time
        if self.dtype == torch.float32:
            np.multiply(self.total, 1 / by, out=self.mixed) if exact else np.divide(self.total, by, out=self.mixed)
            return self._mixed
        total = self._total.mul_(1 / by) if exact else self._total.div_(by)
        return total.to(self.dtype)


class _Other:
    def __init__(self, memory: memoryview, dtype: torch.dtype) -> None:
        self.memory, self.total, self.dtype = memory, TensorSum(), dtype

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
