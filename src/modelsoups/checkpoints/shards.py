"""Tensors that are stored as several shards, put together one block of elements at a time.

A part is a shard's offsets in the tensor (one number per dimension) and its elements, an array in a
mapped file. Its dtype only has the right size: elements are copied, never computed with.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelsoups.checkpoints.mapped import Bytes, MappedFile, bytes_of

Part = tuple[tuple[int, ...], NDArray[Any]]  # offsets in the tensor, the shard's elements
Box = tuple[tuple[int, ...], tuple[int, ...]]  # offsets, sizes
CELLS = 2**22  # of the grid that the borders of all shards make, up to which their cover is checked


@dataclass(frozen=True)
class InShards:
    """A tensor stored as shards in mapped files; its elements are put together when read.

    find: returns each shard's offsets and elements; called at the first read.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    find: Callable[[], Sequence[Part]]
    files: frozenset[MappedFile]

    @cached_property
    def _parts(self) -> Sequence[Part]:
        return self.find()

    @cached_property
    def _whole(self) -> Bytes | None:
        """The tensor's bytes if it is stored as one contiguous shard, otherwise None."""
        one = len(self._parts) == 1 and self._parts[0][1].flags.c_contiguous
        return self._parts[0][1].reshape(-1).view(np.uint8) if one else None

    def address(self) -> int | None:
        """Return the first element's memory address; None if there are several shards."""
        self._check()
        return None if self._whole is None else self._whole.ctypes.data

    def block(self, start: int, stop: int) -> Bytes:
        """Return the bytes of flat elements `start` to `stop` - 1, copied if in several shards."""
        self._check()
        size = self.dtype.itemsize
        if self._whole is not None:
            return self._whole[start * size : stop * size]
        made = np.empty(stop - start, f"V{size}")
        fill(made, self._parts, self.shape, start)
        return made.view(np.uint8)

    def tensor(self) -> Tensor:
        """Put the whole tensor together in memory and return it."""
        tensor = torch.empty(self.shape, dtype=self.dtype)
        self._check()
        fill(bytes_of(tensor).view(f"V{self.dtype.itemsize}"), self._parts, self.shape, 0)
        for file in self.files:
            file.check_unchanged()
            file.release()
        return tensor

    def _check(self) -> None:
        for file in self.files:
            file.check(file.opened.st_size)


def fill(out: NDArray[Any], parts: Sequence[Part], shape: tuple[int, ...], start: int) -> None:
    """Copy a tensor's flat elements from `start` on from its shards into `out`, a flat array.

    Only the rows that `out` covers are read, so memory does not grow with the tensor.
    """
    if not len(out):
        return
    if not shape:
        out[:] = parts[0][1].reshape(1)
        return
    width, stop = math.prod(shape[1:]), start + len(out)
    first, last = start // width, (stop - 1) // width
    if first == last and len(shape) > 1:  # within one row: a tensor of one dimension less
        inner = [(at[1:], array[first - at[0]]) for at, array in parts if 0 <= first - at[0] < len(array)]
        fill(out, inner, shape[1:], start - first * width)
        return
    head, tail = -start % width, stop % width
    if head or tail:
        fill(out[:head], parts, shape, start)
        fill(out[head : len(out) - tail], parts, shape, start + head)
        fill(out[len(out) - tail :], parts, shape, stop - tail)
        return
    rows = out.reshape(last + 1 - first, *shape[1:])
    for at, array in parts:
        low, high = max(first, at[0]), min(last + 1, at[0] + len(array))
        if low < high:
            place = (slice(a, a + size) for a, size in zip(at[1:], array.shape[1:], strict=True))
            rows[(slice(low - first, high - first), *place)] = array[low - at[0] : high - at[0]]


def is_covered(shape: tuple[int, ...], boxes: Sequence[Box]) -> bool:
    """Return whether boxes (offsets, sizes) cover a tensor of this shape, without overlap."""
    for at, sizes in boxes:
        if len(at) != len(shape) or len(sizes) != len(shape):
            return False
        if any(a < 0 or size < 0 or a + size > n for a, size, n in zip(at, sizes, shape, strict=True)):
            return False
    full = [box for box in boxes if math.prod(box[1])]
    if sum(math.prod(sizes) for _, sizes in full) != math.prod(shape):
        return False
    borders = [sorted({0, n, *(b for at, s in full for b in (at[d], at[d] + s[d]))}) for d, n in enumerate(shape)]
    if len(full) < 2:
        return True  # one box of the right size within the tensor is all of it
    if math.prod(len(b) for b in borders) > CELLS:
        return False
    grid = np.zeros([len(b) - 1 for b in borders], bool)
    places = [{border: i for i, border in enumerate(b)} for b in borders]
    for at, sizes in full:
        grid[tuple(slice(p[a], p[a + s]) for p, a, s in zip(places, at, sizes, strict=True))] = True
    return bool(grid.all())  # with as many elements as the tensor has, none is covered twice
