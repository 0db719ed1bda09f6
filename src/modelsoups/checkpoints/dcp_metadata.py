"""Read .metadata, the index file of a PyTorch distributed checkpoint (DCP), without running code.

It is a pickle of torch.distributed.checkpoint.metadata.Metadata. Each class that it may name is
replaced by an empty class that only stores its arguments; any other class is refused. See
torch/distributed/checkpoint/metadata.py and filesystem.py for the fields.
"""

import contextlib
import io
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from modelsoups.checkpoints.shards import is_covered
from modelsoups.disk.opening import open_to_read

METADATA = ".metadata"
DCP = "torch.distributed.checkpoint"
KEPT = {  # classes that a .metadata consists of, by module; since torch 2.0
    f"{DCP}.metadata": (
        "Metadata",
        "TensorStorageMetadata",
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "TensorProperties",
        "MetadataIndex",
        "StorageMeta",
        "_MEM_FORMAT_ENCODING",
    ),
    f"{DCP}.filesystem": ("_StorageInfo",),
    "torch.distributed._shard.sharded_tensor.metadata": ("TensorProperties", "MEM_FORMAT_ENCODING"),
    "torch.serialization": ("_get_layout",),
    "pathlib": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path"),
    "pathlib._local": ("PosixPath", "WindowsPath"),
}
LARGEST = 2**62  # bytes of a tensor
DEEPEST = 64  # dicts within each other
NAMES = "state_dict_metadata"
Places = dict[tuple[str, Any], Any]
Place = tuple[str | int, ...]  # keys from the outermost dict of the saved state to a tensor


@dataclass(frozen=True)
class Shard:
    """A part of a tensor: its offsets in the tensor, its shape, and its byte range in a file."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    start: int
    length: int


@dataclass(frozen=True)
class Stored:
    """A tensor of a distributed checkpoint; `chunks` is .metadata's list of its shards."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    chunks: Any


class Saved:
    """The contents list of a distributed checkpoint, read from its file .metadata.

    entries: {nested dict keys: tensor, or None for other values}. Raises OSError if the file cannot
    be opened, and ValueError if it is damaged or names a class that is not allowed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(open_to_read(path), "rb") as file:
            content = file.read()
        with self._told():
            root = _state(_Reader(content).load(), "Metadata")
            places = root.get("planner_data") or {}
            self.entries = {_place(name, places): _entry(name, what) for name, what in root[NAMES].items()}
            self._storage = root.get("storage_data") or {}

    def shards(self, tensor: Stored) -> tuple[Shard, ...]:
        """Return a tensor's shards; ValueError if one is missing or they do not cover it."""
        with self._told():
            found = tuple(_shard(tensor.name, chunk, self._places) for chunk in tensor.chunks)
            if not is_covered(tensor.shape, [(shard.offsets, shard.sizes) for shard in found]):
                raise _Odd(f"the shards of {tensor.name} do not cover its shape {tensor.shape}; save it again")
        return found

    @cached_property
    def _places(self) -> Places:
        """Map (tensor name, offsets of a shard) to a record of where the shard is stored."""
        indices = ((_state(index, "MetadataIndex"), info) for index, info in self._storage.items())
        return {(at["fqn"], at.get("offset")): info for at, info in indices}

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn an error of reading the file, in the with block, into ValueError with its path."""
        try:
            yield
        except _Refused as error:
            what = "contains Python objects that no .metadata of PyTorch has"
            refused = f"{what} ({error}) and that can run code, so it is refused"
            way_out = "load it with the library that wrote it, and save the weights as .safetensors"
            raise ValueError(f"{self.path} {refused}; {way_out}") from error
        except _Odd as error:
            raise ValueError(f"{self.path}: {error}") from error
        except MemoryError:
            raise
        except Exception as error:  # a damaged pickle leads its reader to any of them
            reason = str(error).partition("\n")[0][:200]
            what = "is not the metadata of a distributed checkpoint, or is truncated"
            raise ValueError(f"{self.path} {what} ({type(error).__name__}: {reason}); copy or save it again") from error


class _Kept:
    """A placeholder for an object in .metadata: stores the object's state, and runs no code."""

    state: Any = None

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Refused(Exception):
    """Raised if .metadata names a class that is not allowed; the message is this name."""


class SafeUnpickler(pickle._Unpickler):
    """The unpickler written in Python: in the one written in C, 8 harmful bytes can allocate 64 GB.

    The opcode for byte arrays could allocate as much; it is disabled, as no checkpoint needs it.
    """

    dispatch = {code: load for code, load in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]}  # noqa: RUF012


class _Reader(SafeUnpickler):
    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        # New ones for each file, as a pickle may set their attributes.
        self.classes: dict[str, type[_Kept]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if name in KEPT.get(module, ()):
            return self.classes.setdefault(name, type(name, (_Kept,), {}))
        if module == "torch" and isinstance(vars(torch).get(name), (torch.dtype, torch.layout)):
            return vars(torch)[name]
        if (module, name) == ("torch", "Size"):
            return tuple
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise _Refused(f"{module}.{name}")


class _Odd(Exception):
    """Raised if one tensor is invalid or not supported; the message says why."""


def _state(kept: Any, name: str) -> dict[str, Any]:
    if not isinstance(kept, _Kept) or type(kept).__name__ != name or not isinstance(kept.state, dict):
        raise TypeError(f"expected {name}")
    return kept.state


def _sizes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple) or not all(type(n) is int and n >= 0 for n in value):
        raise TypeError("expected a shape")
    return value


def _place(name: Any, places: dict[str, Any]) -> Place:
    place = places.get(name, (name,))
    if not 0 < len(place) <= DEEPEST or not all(type(key) in (str, int) for key in place):
        raise TypeError(f"expected the dict keys of {name}")
    return tuple(place)


def _entry(name: Any, kept: Any) -> Stored | None:
    if isinstance(kept, _Kept) and type(kept).__name__ == "BytesStorageMetadata":
        return None
    state = _state(kept, "TensorStorageMetadata")
    dtype, layout = state["properties"].state[:2]
    if not isinstance(name, str) or not isinstance(dtype, torch.dtype):
        raise TypeError(f"expected a name and a dtype for tensor {name}")
    if isinstance(layout, torch.layout) and layout != torch.strided:
        raise _Odd(f"tensor {name} is sparse; only dense tensors can be mixed")
    shape, total = _sizes(state["size"]), dtype.itemsize
    for size in shape:
        total *= max(size, 1)
        if total > LARGEST:
            raise TypeError(f"{name} is larger than a tensor can be")
    return Stored(name, dtype, shape, state["chunks"])


def _shard(name: str, chunk: Any, places: Places) -> Shard:
    part = _state(chunk, "ChunkStorageMetadata")
    offsets, sizes = _sizes(part["offsets"]), _sizes(part["sizes"])
    kept = places.get((name, offsets)) or places.get((name, None))
    if kept is None:
        raise _Odd(f"tensor {name} has no file for its shard at {offsets}; save it again")
    info = _state(kept, "_StorageInfo")
    if info.get("transform_descriptors"):
        how = ", ".join(map(str, info["transform_descriptors"]))
        raise _Odd(f"tensor {name} is stored through extensions ({how}), which are not supported")
    file, start, length = info["relative_path"], info["offset"], info["length"]
    if not isinstance(file, str) or type(start) is not int or type(length) is not int:
        raise TypeError(f"expected a file and a byte range for {name}")
    return Shard(offsets, sizes, file, start, length)
