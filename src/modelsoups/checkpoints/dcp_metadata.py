"""The file .metadata of a distributed checkpoint of PyTorch (DCP), read without running code.

It is a pickle of torch.distributed.checkpoint.metadata.Metadata. Each class that it may name is
stood for by an empty one that only keeps what it is given; any other name is refused. See
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
    """A part of a tensor: where it begins, its shape, and the bytes of a file that hold it."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    start: int
    length: int


@dataclass(frozen=True)
class Stored:
    """A tensor of a distributed checkpoint; `chunks` is what .metadata holds about its shards."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    chunks: Any


class Saved:
    """What a distributed checkpoint holds, read from its file .metadata.

    entries: by place a tensor, or None for what is none. Raises OSError if the file cannot be
    opened, and ValueError if it asks for a class that it must not, or is damaged.
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
        """Return the shards of a tensor; ValueError if they are not stored, or do not make it."""
        with self._told():
            found = tuple(_shard(tensor.name, chunk, self._places) for chunk in tensor.chunks)
            if not is_covered(tensor.shape, [(shard.offsets, shard.sizes) for shard in found]):
                raise _Odd(f"the parts of tensor {tensor.name} do not make its shape {tensor.shape}; save it again")
        return found

    @cached_property
    def _places(self) -> Places:
        """Where each shard is stored, by its tensor's name and its offsets."""
        indices = ((_state(index, "MetadataIndex"), info) for index, info in self._storage.items())
        return {(at["fqn"], at.get("offset")): info for at, info in indices}

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what goes wrong with a pickle or its content into a ValueError with the file's name."""
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
    """Stands for an object of a class that .metadata names; holds its state, and does nothing."""

    state: Any = None

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Refused(Exception):
    """Raised with the name of something that .metadata must not ask for."""


class SafeUnpickler(pickle._Unpickler):
    """The unpickler in Python: in the one in C eight bytes can claim 64 GB, for a table of its memo.

    Byte arrays, of which there are none here, could claim as much.
    """

    dispatch = {code: load for code, load in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]}  # noqa: RUF012


class _Reader(SafeUnpickler):
    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self.classes: dict[str, type[_Kept]] = {}  # new ones for each file, as a pickle may set their attributes

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
    """Raised with what is wrong with one tensor."""


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
        raise TypeError(f"expected the place of {name}")
    return tuple(place)


def _entry(name: Any, kept: Any) -> Stored | None:
    if isinstance(kept, _Kept) and type(kept).__name__ == "BytesStorageMetadata":
        return None
    state = _state(kept, "TensorStorageMetadata")
    dtype, layout = state["properties"].state[:2]
    if not isinstance(name, str) or not isinstance(dtype, torch.dtype):
        raise TypeError(f"expected the name and dtype of {name}")
    if isinstance(layout, torch.layout) and layout != torch.strided:
        raise _Odd(f"tensor {name} is sparse; only dense tensors can be mixed")
    shape, total = _sizes(state["size"]), dtype.itemsize
    for size in shape:
        total *= max(size, 1)
        if total > LARGEST:
            raise TypeError(f"{name} is larger than any tensor")
    return Stored(name, dtype, shape, state["chunks"])


def _shard(name: str, chunk: Any, places: Places) -> Shard:
    part = _state(chunk, "ChunkStorageMetadata")
    offsets, sizes = _sizes(part["offsets"]), _sizes(part["sizes"])
    kept = places.get((name, offsets)) or places.get((name, None))
    if kept is None:
        raise _Odd(f"where the part of tensor {name} at {offsets} is stored is not in it; save it again")
    info = _state(kept, "_StorageInfo")
    if info.get("transform_descriptors"):
        how = ", ".join(map(str, info["transform_descriptors"]))
        raise _Odd(f"tensor {name} is stored through extensions ({how}), which are not read; save without them")
    file, start, length = info["relative_path"], info["offset"], info["length"]
    if not isinstance(file, str) or type(start) is not int or type(length) is not int:
        raise TypeError(f"expected the file of {name}")
    return Shard(offsets, sizes, file, start, length)
