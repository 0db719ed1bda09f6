"""Checkpoints of every common layout as lazy states: each tensor is read from its file when it is asked for.

A safetensors file (single, or sharded with its index), a PyTorch file (memory-mapped, weights only), a Hugging Face
folder or a state dict in memory. Nesting ("state_dict", "model", EMA) and prefixes of wrappers are found, undone and
noted. Sources: the formats' own documentation.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from modelsoups.checkpoints.states import SUFFIXES, describe, read_pickle
from modelsoups.checkpoints.tensors import Held, MappedFile, Stored, numbers_of
from modelsoups.disk import paths

Source = str | os.PathLike[str] | Mapping[str, Tensor]
NESTS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "ema")  # the first that is there
KNOWN = 1024  # PyTorch files whose tensors' places are kept
WRAPPERS = ("module.", "_orig_mod.")  # put before every name by DistributedDataParallel and torch.compile
WHOLE = (paths.MODEL, "pytorch_model.bin")  # a folder's weights in one file, in the order they are looked for
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}


Places = dict[str, tuple[int, torch.dtype, tuple[int, ...]]]  # of the tensors: offset, dtype and shape
_places: dict[tuple[object, ...], tuple[Places, dict[str, str], tuple[str, ...]]] = {}  # with ties and notes, by file


@dataclass(eq=False)  # two checkpoints are not compared
class Checkpoint(Mapping[str, Tensor]):
    """A state whose tensors are read when asked for, in the order of the file.

    tied maps a name to the earlier name whose tensor it shares; notes say what was undone to get here; folder is the
    Hugging Face folder that it came from, files are those read.
    """

    name: str
    entries: dict[str, Stored | Held]
    tied: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    folder: Path | None = None
    files: tuple[Path, ...] = ()

    def __getitem__(self, key: str) -> Tensor:
        return self.entries[key].whole()

    def forget(self) -> None:
        """Let go of the files' pages that were read so far."""
        for file in self._mapped:
            file.forget()

    @cached_property
    def _mapped(self) -> set[MappedFile]:
        return {entry.file for entry in self.entries.values() if isinstance(entry, Stored)}

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def layout(self) -> dict[str, str]:
        """{tensor name: "(10, 128) float32"}, without reading the tensors."""
        return {k: describe(e) for k, e in self.entries.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors, a tied one once."""
        return sum(math.prod(e.shape) * e.dtype.itemsize for k, e in self.entries.items() if k not in self.tied)


def open_checkpoint(source: Source, key: str | None = None) -> Checkpoint:
    """A checkpoint as a lazy state; `key` names the nested entry to take where there are several ("state_dict_ema").

    Raises ValueError naming the file: missing, truncated, of an unknown kind, needing code to load, without weights,
    shards that do not match their index, an index that points out of its folder, or no such key.
    """
    if isinstance(source, Checkpoint):
        return source
    if not isinstance(source, (str, os.PathLike)):
        if not isinstance(source, Mapping):
            raise ValueError(f"a {type(source).__name__}: expected a path or a state dict, as of model.state_dict()")
        return _unwrapped(opened_state(source))
    path = Path(source)
    try:
        if path.is_dir():
            return _unwrapped(_folder(path))
        if path.name.endswith(".index.json"):
            return _unwrapped(_sharded(path))
        if path.suffix not in SUFFIXES:
            kinds = ", ".join(SUFFIXES)
            raise ValueError(f"{path}: unknown kind of checkpoint; expected {kinds}, .index.json or a folder")
        if path.suffix == ".safetensors":
            if key is not None:
                raise ValueError(f"{path} is a safetensors file, which nests nothing; leave key={key} out")
            return _unwrapped(_safetensors(path))
        return _unwrapped(_pickle(path, key))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error


def opened_state(state: Mapping[str, Tensor]) -> Checkpoint:
    """A state dict as a lazy state with the same names, its tensors staying where they are."""
    return state if isinstance(state, Checkpoint) else _of_tensors("state in memory", state)


# ---- the formats ----


def _safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, "pt") as file:  # the library checks sizes, offsets and the header's length
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or not safetensors ({error}); delete it and make it again") from error
    file = MappedFile(path)
    length = int.from_bytes(file.read(0, 8).tobytes(), "little")
    header = json.loads(file.read(8, 8 + length).tobytes())
    header.pop("__metadata__", None)
    entries: dict[str, Stored | Held] = {}
    for name, info in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if info["dtype"] not in DTYPES:
            raise ValueError(f"{path}: tensor {name} is of type {info['dtype']}; expected one of {', '.join(DTYPES)}")
        start = 8 + length + info["data_offsets"][0]
        entries[name] = Stored(file, start, DTYPES[info["dtype"]], tuple(info["shape"]))
    checkpoint = Checkpoint(str(path), entries, files=(path,))
    for name, kept in metadata.items():  # as safetensors.torch.save_model notes tensors that it wrote once
        if kept in entries and name not in entries:
            entries[name], checkpoint.tied[name] = entries[kept], kept
    if not entries:
        raise ValueError(f"{path} holds no tensors")
    return checkpoint


def _pickle(path: Path, key: str | None) -> Checkpoint:
    """A PyTorch file; of one that is as it was, its tensors' places are known from before (unpickling takes 20 ms)."""
    now = path.stat()
    known = path.resolve(), now.st_ino, now.st_size, now.st_mtime_ns, key
    if known in _places:
        file, (places, tied, notes) = MappedFile(path), _places[known]
        entries: dict[str, Stored | Held] = {name: Stored(file, *place) for name, place in places.items()}
        return Checkpoint(str(path), entries, dict(tied), list(notes), files=(path,))
    read = _unpickled(path, key)
    stored = {name: entry for name, entry in read.entries.items() if isinstance(entry, Stored)}
    if len(stored) == len(read):
        places = {name: (entry.offset, entry.dtype, entry.shape) for name, entry in stored.items()}
        while len(_places) >= KNOWN:
            del _places[next(iter(_places))]
        _places[known] = places, dict(read.tied), tuple(read.notes)
    return read


def _unpickled(path: Path, key: str | None) -> Checkpoint:
    content, notes = read_pickle(path), []
    if isinstance(content, Mapping) and (key is not None or not _is_state(content)):
        found = [k for k in NESTS if isinstance(content.get(k), Mapping) and _is_state(content[k])]
        found += [k for k, v in content.items() if k not in NESTS and isinstance(v, Mapping) and _is_state(v)]
        if (key or (found[0] if found else None)) not in found:
            what = f"no weights under {key}" if key else "no tensors by name"
            raise ValueError(f"{path} holds {what}; it has weights under: {', '.join(map(str, found)) or 'nothing'}")
        chosen = key or found[0]
        others = ", ".join(str(k) for k in found if k != chosen)
        notes.append(f"took its entry {chosen}" + (f"; there are also {others} (key=...)" if others else ""))
        content = content[chosen]
    if not isinstance(content, Mapping) or not _is_state(content):
        raise ValueError(f"{path} holds a {type(content).__name__}, not tensors by name; save model.state_dict()")
    checkpoint = _of_tensors(str(path), content)
    checkpoint.notes += notes
    checkpoint.files = (path,)
    _read_in_order(checkpoint, path)
    return checkpoint


def _read_in_order(checkpoint: Checkpoint, path: Path) -> None:
    """Turn contiguous tensors of torch.load's memory map into places in a map of ours, whose pages can be let go.

    Where the system does not tell its memory maps (Linux does), or torch made none, the tensors stay as they are.
    """
    maps = _maps(path)
    if not maps:
        return
    file = MappedFile(path)
    placed: dict[str, Stored | Held] = {}
    for name, held in checkpoint.entries.items():
        assert isinstance(held, Held)
        at, size = held.tensor.data_ptr(), held.tensor.nbytes
        offset = next((o + at - low for low, high, o in maps if low <= at and at + size <= high), None)
        if offset is None or not held.tensor.is_contiguous() or not size:
            continue
        placed[name] = Stored(file, offset, held.dtype, held.shape)
        start = numbers_of(held.tensor.reshape(-1)[:8]).tobytes()
        if file.read(offset, offset + len(start)).tobytes() != start:  # torch swapped the bytes of a big-endian file
            return
    checkpoint.entries |= placed


def _maps(path: Path) -> list[tuple[int, int, int]]:
    """(first address, address after the last, offset in the file) of this process's memory maps of a file."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found, inode = [], path.stat().st_ino
    for line in lines:
        addresses, _, offset, _, number, *name = line.split(maxsplit=5)
        if int(number) == inode and name and name[0] == str(path.resolve()):
            low, high = (int(a, 16) for a in addresses.split("-"))
            found.append((low, high, int(offset, 16)))
    return found


def _is_state(value: Mapping[Any, Any]) -> bool:
    return bool(value) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _of_tensors(name: str, state: Mapping[Any, Any]) -> Checkpoint:
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(f"{name}: entry {key} is a {type(value).__name__}, not a tensor; give model.state_dict()")
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise ValueError(f"{name}: tensor {key} is sparse, quantized or on meta; only dense tensors can be mixed")
    if not state:
        raise ValueError(f"{name} holds no tensors")
    tied: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for key, tensor in state.items():
        if tensor.numel() and tensor.device.type != "meta":
            same = (tensor.data_ptr(), tensor.device, tensor.dtype, tuple(tensor.shape), tensor.stride())
            if same in seen:
                tied[key] = seen[same]
            seen.setdefault(same, key)
    return Checkpoint(name, {k: Held(v.detach().resolve_neg()) for k, v in state.items()}, tied)


def _folder(path: Path) -> Checkpoint:
    for name in WHOLE:
        if (path / name).exists():
            checkpoint = _safetensors(path / name) if name.endswith(".safetensors") else _pickle(path / name, None)
            break
        if (path / f"{name}.index.json").exists():
            checkpoint = _sharded(path / f"{name}.index.json")
            break
    else:
        raise ValueError(f"{path}: no weights in this folder; expected {' or '.join(WHOLE)}, or an .index.json of one")
    checkpoint.name, checkpoint.folder = str(path), path
    return checkpoint


def _sharded(index: Path) -> Checkpoint:
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        by_file: dict[str, list[str]] = {}
        for name, file in names.items():
            if not isinstance(file, str):
                raise TypeError
            by_file.setdefault(file, []).append(name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is not an index of shards (weight_map is missing or damaged)") from error
    if not by_file:
        raise ValueError(f"{index} holds no tensors")
    whole = Checkpoint(str(index), {})
    for file, expected in by_file.items():
        if file != Path(file).name or Path(file).suffix not in SUFFIXES:
            raise ValueError(f"{index}: shard {file} is not the name of a weights file beside the index; refused")
        if not (index.parent / file).is_file():
            raise ValueError(f"{index}: shard {file} is missing")
        part = (
            _safetensors(index.parent / file) if file.endswith(".safetensors") else _pickle(index.parent / file, None)
        )
        if odd := sorted(set(part) ^ set(expected)):
            where = "is not in it" if odd[0] in expected else "is in it, but not in the index"
            raise ValueError(f"{index}: shard {file} does not match: tensor {odd[0]} {where}; fetch the shards again")
        whole.entries.update(part.entries)
        whole.tied.update(part.tied)
        whole.files += part.files
    whole.files += (index,)
    whole.notes.append(f"{len(by_file)} shards")
    return whole


def _unwrapped(checkpoint: Checkpoint) -> Checkpoint:
    """Without the prefix that a wrapper put before every name."""
    while prefix := next((p for p in WRAPPERS if all(k.startswith(p) for k in checkpoint)), None):
        checkpoint.entries = {k.removeprefix(prefix): e for k, e in checkpoint.entries.items()}
        checkpoint.tied = {a.removeprefix(prefix): b.removeprefix(prefix) for a, b in checkpoint.tied.items()}
        checkpoint.notes.append(f"prefix {prefix} removed")
    return checkpoint
