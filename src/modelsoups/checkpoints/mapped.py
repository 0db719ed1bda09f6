"""Memory-mapped files, and views of bytes as tensors and of tensors as bytes."""

import mmap
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelsoups.disk.opening import open_to_read

Bytes = NDArray[np.uint8]
CHANGED = "was changed while it was being read; run this again once nothing writes to it"


class MappedFile:
    """A file that is memory-mapped for reading: bytes are read on access, not copied."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(open_to_read(path), "rb") as file:  # a private writable map would count as memory
            self.opened = os.fstat(file.fileno())
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.bytes = np.frombuffer(self.map, np.uint8)
        self.address = self.bytes.ctypes.data

    def check(self, stop: int) -> None:
        """Raise ValueError if the file is now shorter than `stop` bytes: reading kills the process."""
        if self.map.size() < stop:  # the size of the file now, not when it was mapped
            raise ValueError(f"{self.path} ends too early; it was truncated while it was being read")

    def _now(self) -> os.stat_result:
        """Return the file's current os.stat, or the first one if `path` is another file now."""
        try:
            now = os.stat(self.path)
        except FileNotFoundError:
            return self.opened
        return now if os.path.samestat(now, self.opened) else self.opened  # the map keeps its file

    def check_unchanged(self) -> None:
        """Raise ValueError if the file was written to since it was opened."""
        self.check(self.opened.st_size)
        now = self._now()
        if (now.st_size, now.st_mtime_ns) != (self.opened.st_size, self.opened.st_mtime_ns):
            raise ValueError(f"{self.path} {CHANGED}")

    def touched(self) -> bool:
        """Return whether the ctime changed since opening; unlike mtime, users cannot set it."""
        return self._now().st_ctime_ns != self.opened.st_ctime_ns

    def read(self, start: int, stop: int) -> Bytes:
        """Return bytes `start` to `stop` - 1 of the file, as a read-only array without a copy."""
        self.check(stop)
        return self.bytes[start:stop]

    def release(self) -> None:
        """Free the memory of the pages read so far; the system's file cache keeps them."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.map.madvise(mmap.MADV_DONTNEED)


def bytes_of(tensor: Tensor) -> Bytes:
    """Return the bytes of a contiguous CPU tensor, without a copy."""
    flat = tensor.detach().reshape(-1)
    flat = flat.as_strided(flat.shape, (1,))  # a single element may have any stride
    return flat.view(torch.uint8).numpy()


def tensor_of(block: Bytes, dtype: torch.dtype) -> Tensor:
    """Return bytes as a flat tensor of this dtype that shares their memory; do not write to it."""
    return torch.from_numpy(np.asarray(_Readable(block))).view(dtype)


class _Readable:
    """Read-only bytes that NumPy takes for writable, because torch.from_numpy warns otherwise."""

    def __init__(self, block: Bytes) -> None:
        self.block = block  # keeps the memory
        self.__array_interface__ = {
            "data": (block.ctypes.data, False),
            "shape": block.shape,
            "strides": block.strides,
            "typestr": "|u1",
            "version": 3,
        }
