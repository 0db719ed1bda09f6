"""Checkpoints as mappings of tensors that are read when asked for, and the bytes of each tensor."""

import math
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelsoups.disk.opening import open_to_read

Bytes = NDArray[np.uint8]
CHANGED = "was changed while it was being read; run this again once nothing writes to it"


class MappedFile:
    """A file as a memory map: nothing is copied, and the system may take pages back at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(open_to_read(path), "rb") as file:  # a private writable map would count as memory
            self.opened = os.fstat(file.fileno())
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.bytes = np.frombuffer(self.map, np.uint8)
        self.address = self.bytes.ctypes.data

    def check(self, stop: int) -> None:
        """Raise ValueError if the file became shorter: reading beyond its end kills the process."""
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
        """Give the pages read so far back to the system, which keeps them in its cache."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.map.madvise(mmap.MADV_DONTNEED)


class InFile(NamedTuple):
    """A tensor in a mapped file, its elements one after the other."""

    file: MappedFile
    offset: int  # bytes from the start of the file
    dtype: torch.dtype
    shape: tuple[int, ...]

    def address(self) -> int:
        """The memory address of the first element, once the file is known to hold all of them."""
        self.file.check(self.offset + nbytes(self))
        return self.file.address + self.offset

    def block(self, start: int, stop: int) -> Bytes:
        """The bytes of elements `start` to `stop` of the flat tensor; not to be written to."""
        size = self.dtype.itemsize
        return self.file.read(self.offset + start * size, self.offset + stop * size)

    def tensor(self) -> Tensor:
        """A copy in memory."""
        tensor = torch.empty(self.shape, dtype=self.dtype)
        bytes_of(tensor)[:] = self.file.read(self.offset, self.offset + nbytes(self))
        self.file.check_unchanged()
        self.file.release()
        return tensor


@dataclass(frozen=True)
class InMemory:
    """A tensor in memory, on any device and with any strides."""

    held: Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.held.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.held.shape)

    @cached_property
    def _bytes(self) -> Bytes | None:
        plain = self.held.is_contiguous() and self.held.device.type == "cpu"
        return bytes_of(self.held) if plain else None

    def address(self) -> int | None:
        """The memory address of the first element; None on a GPU or if there are gaps."""
        return None if self._bytes is None else self.held.data_ptr()

    def block(self, start: int, stop: int) -> Bytes:
        """As `InFile.block`; a copy on a GPU or if there are gaps."""
        size = self.dtype.itemsize
        if self._bytes is not None:
            return self._bytes[start * size : stop * size]
        tensor = self.held
        if not tensor.is_contiguous():  # copy only the rows that hold these elements
            width = max(1, math.prod(tensor.shape[1:]))
            first = start // width
            tensor, start, stop = tensor[first : -(-stop // width)], start - first * width, stop - first * width
        return bytes_of(tensor.reshape(-1)[start:stop].cpu().contiguous())

    def tensor(self) -> Tensor:
        return self.held.cpu()


def bytes_of(tensor: Tensor) -> Bytes:
    """The bytes of a contiguous tensor on the CPU, in its memory."""
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


Entry = InFile | InMemory


def nbytes(entry: Entry) -> int:
    return math.prod(entry.shape) * entry.dtype.itemsize


@dataclass(eq=False)  # two checkpoints are never compared by ==
class Checkpoint(Mapping[str, Tensor]):
    """A state whose tensors are read when asked for, in the order of the file.

    tied maps a name to the earlier name whose tensor it shares; notes tell the user what reading
    changed; folder is the Hugging Face folder, if it came from one.
    """

    name: str
    entries: dict[str, Entry]
    tied: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    folder: Path | None = None
    files: tuple[Path, ...] = ()

    def __getitem__(self, key: str) -> Tensor:
        return self.entries[key].tensor()

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def release(self) -> None:
        for file in self._mapped:
            file.release()

    def check_unchanged(self) -> None:
        """Raise ValueError naming a file that was written to since it was opened."""
        for file in self._mapped:
            file.check_unchanged()

    def touched(self) -> bool:
        """Whether the content has to be compared: `MappedFile.touched` of any file."""
        return any(file.touched() for file in self._mapped)

    @cached_property
    def _mapped(self) -> set[MappedFile]:
        return {entry.file for entry in self.entries.values() if isinstance(entry, InFile)}


def checkpoint_of(state: Mapping[Any, Any], name: str = "state in memory") -> Checkpoint:
    """A state dict as a checkpoint, without a copy; tensors that share memory are noted as tied.

    Raises ValueError naming the first entry that is not a dense tensor, or `name` if it is empty.
    """
    if isinstance(state, Checkpoint):
        return state
    if not state:
        raise ValueError(f"{name} holds no tensors")
    checkpoint = Checkpoint(name, {})
    seen: dict[tuple[Any, ...], str] = {}
    for key, tensor in state.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            raise ValueError(f"{name}: entry {key} is a {type(tensor).__name__}, not a tensor; give model.state_dict()")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise ValueError(f"{name}: tensor {key} is sparse, quantized or on meta; only dense tensors can be mixed")
        if tensor.numel():
            same = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride())
            if same in seen:
                checkpoint.tied[key] = seen[same]
            seen.setdefault(same, key)
        checkpoint.entries[key] = InMemory(tensor.detach().resolve_neg())
    return checkpoint
