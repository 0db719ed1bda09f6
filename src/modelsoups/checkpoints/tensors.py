"""Checkpoints as mappings whose tensors are read on access, and the bytes of each tensor."""

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
DEPTH = 8  # of collections in collections that are looked into
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


class InFile(NamedTuple):
    """A tensor stored contiguously in a mapped file."""

    file: MappedFile
    offset: int  # bytes from the start of the file
    dtype: torch.dtype
    shape: tuple[int, ...]

    def address(self) -> int:
        """Return the first element's memory address; ValueError if the file is too short."""
        self.file.check(self.offset + nbytes(self))
        return self.file.address + self.offset

    def block(self, start: int, stop: int) -> Bytes:
        """Return the bytes of flat elements `start` to `stop`; do not write to them."""
        size = self.dtype.itemsize
        return self.file.read(self.offset + start * size, self.offset + stop * size)

    def tensor(self) -> Tensor:
        """Return a copy of the tensor in memory."""
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
        """Return the memory address of the first element, or None on a GPU or if not contiguous."""
        return None if self._bytes is None else self.held.data_ptr()

    def block(self, start: int, stop: int) -> Bytes:
        """Do as `InFile.block`; return a copy on a GPU or if the tensor is not contiguous."""
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


Entry = InFile | InMemory


def nbytes(entry: Entry) -> int:
    return math.prod(entry.shape) * entry.dtype.itemsize


@dataclass(eq=False)  # two checkpoints are never compared by ==
class Checkpoint(Mapping[str, Tensor]):
    """A state whose tensors are read on access; names are in the order of the file.

    tied maps a name to the earlier name whose tensor it shares; notes tell the user what reading
    changed; folder is the model's folder, if it came from one, and parts the file of the folder as
    which the tensors are written whose names begin with a prefix; before is the content of the file
    if `alike.align` changed names or entries.
    """

    name: str
    entries: dict[str, Entry]
    tied: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    folder: Path | None = None
    files: tuple[Path, ...] = ()
    before: "Checkpoint | None" = None
    parts: dict[str, Path] = field(default_factory=dict)

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


def is_beside(key: Any, value: Any) -> bool:
    """Whether an entry of a state dict is no weight: a number, a text, settings, nothing, or `_extra_state`."""
    extra = isinstance(key, str) and key.endswith("_extra_state") and not isinstance(value, Tensor)
    return extra or _is_plain(value, 0)


def _is_plain(value: Any, depth: int) -> bool:
    """Whether a value is a number, a text or nothing, or collects such values alone."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple, set)):
        return depth < DEPTH and all(_is_plain(inner, depth + 1) for inner in value)
    return value is None or isinstance(value, (int, float, complex, str, bytes))


def checkpoint_of(state: Mapping[Any, Any], name: str = "state in memory") -> Checkpoint:
    """Return a state dict as a checkpoint, without a copy; tensors that share memory become tied.

    Entries by name that are no tensors (counters, `_extra_state`) are left out and noted. Raises
    ValueError naming the first tensor that is not dense, or `name` if it holds no tensor.
    """
    if isinstance(state, Checkpoint):
        return state
    if not state:
        raise ValueError(f"{name} contains no tensors")
    checkpoint = Checkpoint(name, {})
    seen: dict[tuple[Any, ...], str] = {}
    left_out = [key for key, value in state.items() if is_beside(key, value)]
    if len(left_out) == len(state):
        left_out = []  # these are no weights at all: the first is named
    for key, tensor in state.items():
        if key in left_out:
            continue
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            raise ValueError(f"{name}: entry {key} is a {type(tensor).__name__}, not a tensor; give model.state_dict()")
        if hasattr(tensor, "full_tensor"):
            raise ValueError(f"{name}: tensor {key} is a DTensor, one shard of it here; give its .full_tensor()")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise ValueError(f"{name}: tensor {key} is sparse, quantized or on meta; only dense tensors can be mixed")
        if tensor.numel():
            same = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride())
            if same in seen:
                checkpoint.tied[key] = seen[same]
            seen.setdefault(same, key)
        checkpoint.entries[key] = InMemory(tensor.detach().resolve_neg())
    if left_out:
        shown = ", ".join(map(str, left_out[:3])) + (", ..." if len(left_out) > 3 else "")
        checkpoint.notes.append(f"{shown} left out: no tensors")
    return checkpoint
