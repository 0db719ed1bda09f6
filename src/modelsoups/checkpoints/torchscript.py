"""Read the tensors of a TorchScript archive without running the code in it.

OpenAI publishes CLIP's weights as such archives (ViT-B-32.pt), and torch.jit.load runs their code.
An archive is a zip with `<name>/data.pkl`, a pickle of the tree of modules, and a file
`<name>/data/<key>` for each tensor storage. Other Python objects in the pickle raise ValueError.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")


def is_archive(path: Path) -> bool:
    """Return whether a file is a TorchScript archive (not, for example, a file of torch.save)."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return False
    return any(n.endswith("/constants.pkl") for n in names) and any(n.endswith("/data.pkl") for n in names)


def load_archive(path: Path) -> dict[str, Tensor]:
    """Return all tensors of the archive's modules by their dotted names, on the CPU.

    Raises ValueError if the file is damaged or pickles objects other than modules and tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist() if n.endswith("/data.pkl") and n.count("/") == 1)
            with archive.open(name) as file:
                tree = _Reader(file, archive, name.removesuffix("data.pkl")).load()
            return dict(_tensors(tree, ""))
    except _Refused as error:
        raise ValueError(f"{path} is not loaded: it has a Python object ({error}), which can run code") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle leads its reader to any of them
        raise ValueError(f"{path} is truncated or damaged ({error}); download it again") from error


class _Refused(Exception):
    """Raised if the pickle asks for a forbidden class or function; the message is its name."""


class _Module:
    """A placeholder for any module of the archive; unpickling stores its tensors as attributes."""


class _Reader(pickle.Unpickler):
    """Unpickles data.pkl: modules become `_Module`, tensor storages are read from the zip."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(file)
        self.archive, self.prefix = archive, prefix
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if module == "torch.jit._pickle" and name in LISTS:
            return list
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, numel = pid  # "storage", dtype, key, device when saved, numbers
        if key not in self.storages:
            content = bytearray(self.archive.read(f"{self.prefix}data/{key}"))
            self.storages[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        storage = self.storages[key]
        if len(storage) < numel or storage.dtype != dtype:
            raise ValueError(f"tensor storage {key} has {len(storage)} elements, expected {numel}")
        return storage


def _rebuild(storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Tensor:
    return storage.as_strided(tuple(size), tuple(stride), offset)  # raises outside the storage


def _tensors(module: _Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.")
