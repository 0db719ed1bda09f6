"""The class Checkpoint, which reads tensors from files on access, and access to tensors' bytes."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from modelsoups.checkpoints.mapped import Bytes, MappedFile, bytes_of, tensor_of
from modelsoups.checkpoints.shards import InShards

COMPUTED = 2**20  # numbers of a computed tensor that are in memory as float64 at a time
DEPTH = 8  # of collections in collections that are looked into


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
        self.file.check_unchanged()
        self.file.release()
        return tensor


@dataclass(frozen=True)
class InMemory:
    """A tensor in memory (any device, any strides), with the same methods as `InFile`.

    file: the mapped file with the tensor's bytes, if any; used to detect changes of the file.
    """

    held: Tensor
    file: MappedFile | None = None

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
        """Return the bytes of flat elements `start` to `stop`, maybe a copy; they are read-only."""
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


@dataclass(frozen=True, eq=False)
class Computed:
    """A tensor whose rows are computed from other tensors each time they are read.

    rows(first, last) returns the rows `first` to `last` - 1 in any float dtype; they are rounded
    once, to `dtype`. files: the mapped files that the computation reads.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    rows: Callable[[int, int], Tensor]
    files: frozenset[MappedFile] = frozenset()

    def address(self) -> None:
        """Return None, because the numbers are not stored in memory."""

    def block(self, start: int, stop: int) -> Bytes:
        """Return the bytes of flat elements `start` to `stop` - 1; only their rows are computed."""
        width = max(1, math.prod(self.shape[1:]))
        first = start // width
        flat = self.rows(first, -(-stop // width)).to(self.dtype).reshape(-1)
        return bytes_of(flat[start - first * width : stop - first * width])

    def tensor(self) -> Tensor:
        """Compute the whole tensor, COMPUTED elements at a time to save memory, and return it."""
        whole = torch.empty(self.shape, dtype=self.dtype)
        flat = bytes_of(whole)
        size = self.dtype.itemsize
        for start in range(0, whole.numel(), COMPUTED):
            stop = min(start + COMPUTED, whole.numel())
            flat[start * size : stop * size] = self.block(start, stop)
        return whole


def numbers_of(entry: "Entry") -> Tensor:
    """Return a tensor, without a copy if it is contiguous; do not write to it."""
    return tensor_of(entry.block(0, math.prod(entry.shape)), entry.dtype).view(entry.shape)


def files_of(*entries: "Entry") -> frozenset[MappedFile]:
    """Return the mapped files from which these tensors are read."""
    files = {entry.file for entry in entries if isinstance(entry, InFile | InMemory) and entry.file is not None}
    return frozenset(files.union(*(entry.files for entry in entries if isinstance(entry, InShards | Computed))))


Entry = InFile | InMemory | InShards | Computed


def nbytes(entry: Entry) -> int:
    return math.prod(entry.shape) * entry.dtype.itemsize


@dataclass(eq=False)  # two checkpoints are never compared by ==
class Checkpoint(Mapping[str, Tensor]):
    """An opened checkpoint: a mapping from tensor names to tensors, which are read on access.

    tied: {tensor name: earlier name of the same tensor}. notes: messages to the user about changes
    ("prefix module. removed"). folder: the model's folder that was opened, if any. parts: {prefix
    of tensor names: file in this folder to which a soup writes them}. before: the file's original
    content, if names or tensors were changed after opening.
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
        """Return whether the ctime of any of its files changed since it was opened."""
        return any(file.touched() for file in self._mapped)

    @cached_property
    def _mapped(self) -> set[MappedFile]:
        return set(files_of(*self.entries.values()))


def is_beside(key: Any, value: Any) -> bool:
    """Return whether a state dict's entry is not a weight: number, text, None, `_extra_state`."""
    extra = isinstance(key, str) and key.endswith("_extra_state") and not isinstance(value, Tensor)
    return extra or _is_plain(value, 0)


def _is_plain(value: Any, depth: int) -> bool:
    """Return whether a value is a number, a text or None, or a collection of only such values."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple, set)):
        return depth < DEPTH and all(_is_plain(inner, depth + 1) for inner in value)
    return value is None or isinstance(value, (int, float, complex, str, bytes))


def checkpoint_of(state: Mapping[Any, Any], name: str = "state in memory") -> Checkpoint:
    """Wrap a state dict as a `Checkpoint` without copying; tensors that share memory become tied.

    Entries that are not weights (counters, `_extra_state`) are left out, with a note. Raises
    ValueError, with `name` first, if no tensors remain or an entry is not a dense tensor.
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
            raise ValueError(f"{name}: tensor {key} is a DTensor, a shard of the whole tensor; give its .full_tensor()")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise ValueError(f"{name}: tensor {key} is sparse, quantized or on meta device; expected a dense one")
        if tensor.numel():
            same = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride())
            if same in seen:
                checkpoint.tied[key] = seen[same]
            seen.setdefault(same, key)
        checkpoint.entries[key] = InMemory(tensor.detach().resolve_neg())
    if left_out:
        shown = ", ".join(map(str, left_out[:3])) + (", ..." if len(left_out) > 3 else "")
        checkpoint.notes.append(f"{shown} left out: not tensors")
    return checkpoint
