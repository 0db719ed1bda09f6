"""Files mapped into memory, and the bytes of tensors."""

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
    """A memory-mapped file: nothing is copied, and the system may reclaim its pages at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(open_to_read(path), "rb") as file:  # a private writable map would count as memory
            self.opened = os.fstat(file.fileno())
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.bytes = np.frombuffer(self.map, np.uint8)
        self.address = self.bytes.ctypes.data

    def check(self, stop: int) -> None:
        """Raise ValueError if the file shrank, as reading past its end kills the process."""
        if self.map.size() < stop:  # the size of the file now, not when it was mapped
            raise ValueError(f"{self.path} ends too early; it was cut off while it was being read")

    def _now(self) -> os.stat_result:
        """The file's facts; those when it was opened if the path was removed or leads elsewhere."""
        try:
            now = os.stat(self.path)
        except FileNotFoundError:
            return self.opened
        return now if os.path.samestat(now, self.opened) else self.opened  # the map keeps its file

    def check_unchanged(self) -> None:
        """Raise ValueError if the file was written to since it was opened: what was read is torn."""
        self.check(self.opened.st_size)
        now = self._now()
        if (now.st_size, now.st_mtime_ns) != (self.opened.st_size, self.opened.st_mtime_ns):
            raise ValueError(f"{self.path} {CHANGED}")

    def touched(self) -> bool:
        """Whether anything was done to the file since it was opened; its time may have been put back."""
        return self._now().st_ctime_ns != self.opened.st_ctime_ns

    def read(self, start: int, stop: int) -> Bytes:
        """Bytes of the file; not to be written to, and the map refuses it."""
        self.check(stop)
        return self.bytes[start:stop]

    def release(self) -> None:
        """Release the pages read so far; the system's file cache still has them."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.map.madvise(mmap.MADV_DONTNEED)


def bytes_of(tensor: Tensor) -> Bytes:
    """Return the bytes of a contiguous CPU tensor, without a copy."""
    flat = tensor.detach().reshape(-1)
    flat = flat.as_strided(flat.shape, (1,))  # a single element may have any stride
    return flat.view(torch.uint8).numpy()


def tensor_of(block: Bytes, dtype: torch.dtype) -> Tensor:
    """The numbers of a block, in its memory; not to be written to."""
    return torch.from_numpy(np.asarray(_Readable(block))).view(dtype)


class _Readable:
    """Bytes as NumPy reads them of foreign objects: of a read-only array, from_numpy would warn."""

    def __init__(self, block: Bytes) -> None:
        self.block = block  # keeps the memory
        self.__array_interface__ = {
            "data": (block.ctypes.data, False),
            "shape": block.shape,
            "strides": block.strides,
            "typestr": "|u1",
            "version": 3,
        }
