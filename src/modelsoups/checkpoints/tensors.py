"""Where a checkpoint's tensors lie, in a mapped file or in memory, and their elements without a copy."""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Block = NDArray[Any]


class Flat(Protocol):
    """A flat tensor whose elements start to stop are flat[start:stop], contiguous and not to be written to.

    float32 as they are (which a file need not align), other dtypes as so many rows of bytes.
    """

    def __getitem__(self, elements: slice) -> Block: ...


class MappedFile:
    """A file of weights as a memory map: nothing is copied, and the system may take its pages back at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(path, "rb") as file:
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # never written; NumPy takes it as it is
        self.bytes = np.frombuffer(self.map, np.uint8)
        self.address = self.bytes.ctypes.data

    def check(self, stop: int) -> None:
        """Refuse a file that has become shorter than this: what is read beyond its end would end the process."""
        if self.map.size() < stop:  # of the file, as it is now
            raise ValueError(f"{self.path} ends too early; it was cut off while it was being read")

    def read(self, start: int, stop: int) -> Block:
        """These bytes."""
        self.check(stop)
        return self.bytes[start:stop]

    def forget(self) -> None:
        """Let go of the pages read so far: they stay in the system's cache, and count no longer as this process's."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.map.madvise(mmap.MADV_DONTNEED)


class Stored(NamedTuple):
    """A tensor in a file."""

    file: MappedFile
    offset: int  # bytes from the start of the file
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    def address(self) -> int:
        """Where the elements lie, one after the other."""
        self.file.check(self.end)
        return self.file.address + self.offset

    def flat(self) -> Flat:
        """The elements, without a copy."""
        read = self.file.read(self.offset, self.end)
        return read.view(np.float32) if self.dtype == torch.float32 else read.reshape(-1, self.dtype.itemsize)

    def whole(self) -> Tensor:
        read = self.file.read(self.offset, self.end)
        tensor = torch.empty(self.shape, dtype=self.dtype)
        tensor.view(-1).view(torch.uint8).numpy()[:] = read
        self.file.forget()
        return tensor


@dataclass(frozen=True)
class Held:
    """A tensor in memory, or in a memory map."""

    tensor: Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def _plain(self) -> bool:
        return self.tensor.is_contiguous() and self.tensor.device.type == "cpu"

    def address(self) -> int | None:
        """Where the elements lie, one after the other in memory, if they do."""
        return self.tensor.data_ptr() if self._plain else None

    def flat(self) -> Flat:
        """The elements, without a copy where they are contiguous in memory."""
        return numbers_of(self.tensor.reshape(-1)) if self._plain else _Copied(self.tensor)

    def whole(self) -> Tensor:
        return self.tensor.cpu()


@dataclass(frozen=True)
class _Copied:
    """A tensor on a GPU or with gaps: what is asked for is copied."""

    tensor: Tensor

    def __getitem__(self, elements: slice) -> Block:
        tensor, start, stop = self.tensor, elements.start, elements.stop
        if not tensor.is_contiguous():  # only the rows that are asked for become so
            row = max(1, math.prod(tensor.shape[1:]))
            first = start // row
            tensor, start, stop = tensor[first : -(-stop // row)], start - first * row, stop - first * row
        return numbers_of(tensor.reshape(-1)[start:stop].cpu().contiguous())


def numbers_of(tensor: Tensor) -> Block:
    """A contiguous flat tensor as `Flat` has it."""
    tensor = tensor.detach().as_strided(tensor.shape, (1,))  # a single element may have any stride
    return (
        tensor.numpy() if tensor.dtype == torch.float32 else tensor.view(torch.uint8).view(-1, tensor.itemsize).numpy()
    )
