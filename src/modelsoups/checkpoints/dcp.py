"""Read PyTorch's distributed checkpoints (DCP): folders with .metadata and *.distcp files.

torch.distributed.checkpoint.save, FSDP, FSDP2, torchtitan, accelerate and Lightning write them.
A .distcp file contains shards of tensors, each in torch.save's format. A shard is located when its
tensor is first read, and its numbers are then read from a memory map of the file.
"""

import io
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelsoups.checkpoints.dcp_metadata import METADATA, Place, SafeUnpickler, Saved, Shard, Stored
from modelsoups.checkpoints.mapped import MappedFile
from modelsoups.checkpoints.nests import chosen_state, is_of_training
from modelsoups.checkpoints.shards import InShards, Part
from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.checkpoints.torchscript import DTYPES

FLAT = ("_flat_param", "flat_param")  # FSDP's LOCAL_STATE_DICT: all of a module's parameters
Tree = dict[Any, Any]  # nested dicts as saved; tensors on meta, other values empty bytes


def is_dcp(folder: Path) -> bool:
    return (folder / METADATA).exists()


def read_dcp(folder: Path, key: str | None = None) -> Checkpoint:
    """Return the weights in a distributed checkpoint; for `key` see `formats.open_checkpoint`.

    Raises ValueError if .metadata is damaged or names objects that could run code, if a file is
    missing, if it contains no model or several, and for FSDP's flat parameters.
    """
    saved = Saved(folder / METADATA)
    tree, tensors = _tree(saved)
    usual, notes = _without_training(tree)
    state, more = chosen_state(usual if key is None else tree, folder, key)
    files: dict[str, MappedFile] = {}
    whole = Checkpoint(str(folder), {}, folder=folder, notes=notes + more, parts={"": Path(METADATA)})
    left_out = []
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            left_out.append(name)
            continue
        if name.rpartition(".")[2] in FLAT:
            what = "contains FSDP's flat parameters (LOCAL_STATE_DICT), which only the same set-up can load"
            raise ValueError(f"{folder} {what}; save it with SHARDED_STATE_DICT or FULL_STATE_DICT")
        stored = tensors[id(value)]
        shards = saved.shards(stored)
        for file in {shard.file: None for shard in shards if shard.file not in files}:
            files[file] = _opened(folder, file)
        held = frozenset(files[shard.file] for shard in shards)
        find = partial(_parts, files, name, stored.dtype, shards)
        whole.entries[name] = InShards(stored.dtype, stored.shape, find, held)
    if left_out:
        shown = ", ".join(left_out[:3]) + (", ..." if len(left_out) > 3 else "")
        whole.notes.append(f"{shown} left out: not tensors")
    whole.files = (*(folder / name for name in files), folder / METADATA)
    return whole


def place_of_weights(folder: Path) -> Place:
    """Return the dict keys that lead to the weights: ("model",), or () if at the top level."""
    tree, _ = _tree(Saved(folder / METADATA))
    state, _ = chosen_state(_without_training(tree)[0], folder, None)

    def search(inner: Mapping[Any, Any], place: Place) -> Iterator[Place]:
        if inner is state:
            yield place
        for name, value in inner.items():
            if isinstance(value, Mapping):
                yield from search(value, (*place, name))

    return next(search(tree, ()), ())


def _tree(saved: Saved) -> tuple[Tree, dict[int, Stored]]:
    """Return the saved nested dicts with meta tensors, and {id(meta tensor): its stored tensor}."""
    tree: Tree = {}
    tensors: dict[int, Stored] = {}
    for place, stored in saved.entries.items():
        inner = tree
        for name in place[:-1]:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                break
        if not isinstance(inner, dict) or place[-1] in inner:
            raise ValueError(f"{saved.path} has an entry twice, or nested in a tensor: {'.'.join(map(str, place))}")
        if stored is None:
            inner[place[-1]] = b""
            continue
        tensor = torch.empty((), dtype=stored.dtype, device="meta").expand(stored.shape)
        inner[place[-1]] = tensor
        tensors[id(tensor)] = stored
    return tree, tensors


def _without_training(tree: Tree) -> tuple[Tree, list[str]]:
    """Return the tree without training states beside the weights (optimizer), and notes."""
    if not any(isinstance(value, torch.Tensor) for value in tree.values()):
        return tree, []
    beside = [
        name
        for name, value in tree.items()
        if isinstance(value, Mapping) and (is_of_training(str(name)) or not _has_tensors(value))
    ]
    notes = [f"{', '.join(map(str, beside))} left out: not part of the model"] if beside else []
    return {name: value for name, value in tree.items() if name not in beside} if beside else tree, notes


def _has_tensors(value: object) -> bool:
    return isinstance(value, torch.Tensor) or (isinstance(value, Mapping) and any(map(_has_tensors, value.values())))


def _opened(folder: Path, name: str) -> MappedFile:
    path = folder / name
    if Path(name).name != name:
        raise ValueError(f"{folder / METADATA} names a file in another folder ({name}), so it is refused")
    if not path.exists():
        raise ValueError(f"{folder}: the file {name} is missing; copy the whole folder")
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty; copy or save the checkpoint again")
    return MappedFile(path)


def _parts(files: Mapping[str, MappedFile], name: str, dtype: torch.dtype, shards: Sequence[Shard]) -> list[Part]:
    """Return (offsets in the tensor, elements) of each of a tensor's shards that is not empty."""
    found = []
    for shard in shards:
        if not all(shard.sizes):
            continue
        file = files[shard.file]
        try:
            found.append((shard.offsets, _numbers(file, shard, dtype)))
        except _Refused as error:
            what = f"contains Python objects ({error}), which can run code, so it is refused"
            raise ValueError(f"{file.path}: tensor {name} {what}") from error
        except MemoryError:
            raise
        except Exception as error:  # damaged bytes lead zipfile and pickle to any of them
            reason = str(error).partition("\n")[0][:200]
            what = f"is truncated, damaged or not stored by torch.save ({type(error).__name__}: {reason})"
            way_out = "copy or save the checkpoint again"
            raise ValueError(f"{file.path}: tensor {name} {what}; {way_out}") from error
    return found


def _numbers(file: MappedFile, shard: Shard, dtype: torch.dtype) -> np.ndarray[Any, Any]:
    """Return a shard's elements as raw bytes of their size (NumPy's dtype V2, V4), not copied."""
    with zipfile.ZipFile(_Span(file, shard.start, shard.length)) as archive:
        names = archive.namelist()
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError("a shard is compressed")
        main = next(n for n in names if n.endswith("/data.pkl") and n.count("/") == 1)
        prefix = main.removesuffix("data.pkl")
        if f"{prefix}byteorder" in names and archive.read(f"{prefix}byteorder") != sys.byteorder.encode():
            raise ValueError("its numbers are in the byte order of another kind of machine")
        found, key, first, sizes, strides = _Tensor(archive.read(main)).load()
        info = archive.getinfo(f"{prefix}data/{key}")
    if found != dtype or tuple(sizes) != shard.sizes:
        raise ValueError(f"it is {tuple(sizes)} {found}, not {shard.sizes} {dtype} as .metadata says")
    header = shard.start + info.header_offset
    lengths = file.read(header + 26, header + 30)
    at = header + 30 + int(lengths[0]) + 256 * int(lengths[1]) + int(lengths[2]) + 256 * int(lengths[3])
    if min(first, *strides, 0) < 0 or at + info.file_size > shard.start + shard.length:
        raise ValueError("a shard's numbers lie outside of its byte range")
    steps = [stride * dtype.itemsize for stride in strides]
    content = file.read(at, at + info.file_size)
    return np.ndarray(shard.sizes, f"V{dtype.itemsize}", content.data, first * dtype.itemsize, steps)  # checks bounds


class _Span(io.RawIOBase):
    """A byte range of a mapped file, which zipfile can open as if it were a file."""

    def __init__(self, file: MappedFile, start: int, length: int) -> None:
        if start < 0 or length < 0 or start + length > len(file.bytes):
            raise ValueError("the file ends before one of its shards")
        self.bytes, self.at = file.read(start, start + length), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = max(0, offset + (0, self.at, len(self.bytes))[whence])
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        found = self.bytes[self.at : self.at + len(buffer)]
        buffer[: len(found)] = found.data
        self.at += len(found)
        return len(found)


class _Refused(Exception):
    """Raised if a shard's pickle names a class that no tensor needs; the message is this name."""


class _Tensor(SafeUnpickler):
    """Unpickles one tensor's description: dtype, storage key, storage offset, sizes and strides."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in DTYPES:
            return DTYPES[name]
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_tensor_v3"):
            return _described
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> tuple[torch.dtype, str]:
        _, dtype, key, *_ = pid  # "storage", dtype, key, device when saved, numbers
        return dtype, key


def _described(storage: Any, offset: int, sizes: Any, strides: Any, *more: Any) -> tuple[Any, ...]:
    """Return a tensor's description; replaces torch._utils._rebuild_tensor_v2 and _v3."""
    dtype = next((value for value in more if isinstance(value, torch.dtype)), storage[0])
    return dtype, storage[1], offset, sizes, strides
