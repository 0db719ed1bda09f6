"""The class Checkpoint, which reads tensors from files on access, and access to tensors' bytes."""

import math
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bytes = NDArray[np.uint8]


class MappedFile:
    """A memory-mapped file, read page by page on access; the system may drop pages at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(path, "rb") as file:  # copy on write: torch warns of read-only
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.bytes = np.frombuffer(self.map, np.uint8)
        self.address = self.bytes.ctypes.data

    def check(self, stop: int) -> None:
        """Raise ValueError if the file shrank to under `stop` bytes; reading it would crash."""
        if self.map.size() < stop:  # the size of the file now, not when it was mapped
            raise ValueError(f"{self.path} ends too early; it was cut off while being read")

    def read(self, start: int, stop: int) -> Bytes:
        self.check(stop)
        return self.bytes[start:stop]

    def release(self) -> None:
        """Free the memory of the pages read so far; the system's file cache may keep them."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.map.madvise(mmap.MADV_DONTNEED)


class InFile(NamedTuple):
    """A tensor stored contiguously in a memory-mapped file, from byte `offset` on."""

    file: MappedFile
    offset: int  # bytes from the start of the file
    dtype: torch.dtype
    shape: tuple[int, ...]

    def address(self) -> int:
        """Return the memory address of the first element; ValueError if the file is too short."""
        self.file.check(self.offset + nbytes(self))
        return self.file.address + self.offset

    def block(self, start: int, stop: int) -> Bytes:
        """Return the bytes of flat elements `start` to `stop` - 1; they must not be written to."""
        size = self.dtype.itemsize
        return self.file.read(self.offset + start * size, self.offset + stop * size)

    def tensor(self) -> Tensor:
        """Read the tensor from the file into memory."""
        tensor = torch.empty(self.shape, dtype=self.dtype)
        bytes_of(tensor)[:] = self.file.read(self.offset, self.offset + nbytes(self))
        self.file.release()
        return tensor


@dataclass(frozen=True)
class InMemory:
    """A tensor in memory (any device, any strides), with the same methods as `InFile`."""

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
        """Return the memory address of the first element; None unless contiguous on the CPU."""
        return None if self._bytes is None else self.held.data_ptr()

    def block(self, start: int, stop: int) -> Bytes:
        """Return the bytes of flat elements `start` to `stop`, maybe a copy; do not write to them."""
        size = self.dtype.itemsize
        if self._bytes is not None:
            return self._bytes[start * size : stop * size]
        tensor = self.held
        if not tensor.is_contiguous():  # copy only the rows with these elements
            width = max(1, math.prod(tensor.shape[1:]))
            first = start // width
            tensor, start, stop = tensor[first : -(-stop // width)], start - first * width, stop - first * width
        return bytes_of(tensor.reshape(-1)[start:stop].cpu().contiguous())

    def tensor(self) -> Tensor:
        return self.held.cpu()


def bytes_of(tensor: Tensor) -> Bytes:
    """Return the bytes of a contiguous CPU tensor as an array that shares its memory."""
    flat = tensor.detach().reshape(-1)
    flat = flat.as_strided(flat.shape, (1,))  # a single element may have any stride
    return flat.view(torch.uint8).numpy()


Entry = InFile | InMemory


def nbytes(entry: Entry) -> int:
    return math.prod(entry.shape) * entry.dtype.itemsize


@dataclass(eq=False)  # two checkpoints are never compared by ==
class Checkpoint(Mapping[str, Tensor]):
    """An opened checkpoint: a mapping from tensor names to tensors, which are read on access.

    tied: {tensor name: earlier name of the same tensor}. notes: messages to the user about changes
    ("prefix module. removed"). folder: the Hugging Face folder that was opened, if any.
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

    @cached_property
    def _mapped(self) -> set[MappedFile]:
        return {entry.file for entry in self.entries.values() if isinstance(entry, InFile)}


def checkpoint_of(state: Mapping[Any, Any], name: str = "state in memory") -> Checkpoint:
    """Wrap a state dict as a `Checkpoint` without copying; tensors that share memory become tied.

    Raises ValueError, with `name` first, if `state` is empty or an entry is not a dense tensor.
    """
    if isinstance(state, Checkpoint):
        return state
    if not state:
        raise ValueError(f"{name} contains no tensors")
    checkpoint = Checkpoint(name, {})
    seen: dict[tuple[Any, ...], str] = {}
    for key, tensor in state.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            raise ValueError(f"{name}: entry {key} is a {type(tensor).__name__}, not a tensor; pass model.state_dict()")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise ValueError(f"{name}: tensor {key} is sparse, quantized or on meta device; expected a dense one")
        if tensor.numel():
            same = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride())
            if same in seen:
                checkpoint.tied[key] = seen[same]
            seen.setdefault(same, key)
        checkpoint.entries[key] = InMemory(tensor.detach().resolve_neg())
    return checkpoint
