"""Read PyTorch's zip archives that torch.load(weights_only=True) refuses, without running code.

These are TorchScript archives, as OpenAI publishes CLIP's weights (ViT-B-32.pt), whose code
torch.jit.load would run, and checkpoints saved with another pickle protocol than 2. Both are zips
with a pickle `<name>/data.pkl` and a file `<name>/data/<key>` for each tensor storage. Python
objects other than modules, tensors and plain values raise ValueError.
"""

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelsoups.disk.opening import utf8_name

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
    "UntypedStorage": torch.uint8,  # of dtypes that came later, such as float8
}
LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
PLAIN = {  # what stands for the names that a pickle asks for; none of it can run code
    "collections.OrderedDict": OrderedDict,
    "torch.Size": lambda sizes: tuple(sizes),
    "builtins.set": set,
    "builtins.object": object,
    "_io.BytesIO": io.BytesIO,  # of _extra_state
    "_codecs.encode": lambda text, encoding: str(text).encode(encoding),  # bytes
}

OLD = {"copy_reg": "copyreg", "__builtin__": "builtins"}  # modules as Python 2 called them


def is_archive(path: Path) -> bool:
    """Return whether a file is a TorchScript archive (not, for example, a file of torch.save)."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except OSError:
        raise
    except Exception:  # a damaged directory leads zipfile to any of them
        return False
    return any(n.endswith("/constants.pkl") for n in names) and any(n.endswith("/data.pkl") for n in names)


def load_archive(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a TorchScript archive's modules by their dotted names, memory-mapped.

    Raises ValueError if the file is damaged or pickles objects other than modules and tensors.
    """
    try:
        return dict(_tensors(load_pickle(path), ""))
    except (RecursionError, TypeError) as error:  # modules within themselves, or none
        raise ValueError(f"{path} is truncated or damaged ({error}); download it again") from error


def load_pickle(path: Path) -> Any:
    """Return the content of an archive's data.pkl, in any pickle protocol but 0, memory-mapped.

    Raises ValueError if the file is damaged or pickles objects other than modules and tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(path, archive).load()
    except _Refused as error:
        raise ValueError(f"{path} contains a Python object ({error}), which can run code, so it is refused") from error
    except _Zero as error:
        what = "was saved with pickle protocol 0, which does not store tensors"
        raise ValueError(f"{path} {what}; save it again without pickle_protocol=0") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle leads its reader to any of them
        raise ValueError(f"{path} is truncated or damaged ({error}); download it again") from error


class _Refused(Exception):
    """Raised if the pickle asks for a forbidden class or function; the message is its name."""


class _Zero(Exception):
    """Raised for pickle protocol 0, which replaces a tensor's storage by a mere text."""


class _Module:
    """A placeholder for any module of the archive; unpickling stores its tensors as attributes."""


class _Reader(pickle.Unpickler):
    """Unpickles data.pkl: modules become `_Module`, storages stay in a memory map of the file."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        names = archive.namelist()
        name = next(n for n in names if n.endswith("/data.pkl") and n.count("/") == 1)
        self.archive, self.prefix = archive, name.removesuffix("data.pkl")
        with utf8_name(path) as readable:
            self.mapped = torch.UntypedStorage.from_file(str(readable), False, path.stat().st_size)
        self.module = type("_ModuleOfThisFile", (_Module,), {})
        order = f"{self.prefix}byteorder"
        if order in names and bytes(self._content(order)) != sys.byteorder.encode():
            raise ValueError("its numbers are in the byte order of another kind of machine")
        super().__init__(io.BytesIO(bytes(self._content(name))))

    def _content(self, name: str) -> torch.UntypedStorage:
        """Return the bytes of a file in the zip, uncopied; ValueError if compressed or cut off."""
        info, size = self.archive.getinfo(name), self.mapped.nbytes()
        header = bytes(self.mapped[info.header_offset : min(info.header_offset + 30, size)])
        start = info.header_offset + 30 + int.from_bytes(header[26:28], "little")
        start += int.from_bytes(header[28:30], "little")
        if info.compress_type != zipfile.ZIP_STORED or len(header) < 30 or start + info.file_size > size:
            raise ValueError(f"{name} is compressed or lies outside the file")
        return self.mapped[start : start + info.file_size]

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__.") or (module, name) == ("argparse", "Namespace"):
            return self.module
        if module in ("torch", "torch.storage") and name in DTYPES:
            return DTYPES[name]
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]
        if module == "torch.jit._pickle" and name in LISTS:
            return list
        rebuild = {"_rebuild_tensor_v2": self.tensor, "_rebuild_tensor_v3": self.cast, "_rebuild_parameter": self.first}
        if module == "torch._utils" and name in rebuild:
            return rebuild[name]
        module = OLD.get(module, module)
        if (module, name) == ("copyreg", "_reconstructor"):  # of argparse.Namespace
            return self.made
        if f"{module}.{name}" not in PLAIN:
            raise _Refused(f"{module}.{name}")
        return PLAIN[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> Tensor:
        if isinstance(pid, str):
            raise _Zero
        _, dtype, key, _, numel = pid  # "storage", dtype, key, device when saved, numbers
        content = self._content(f"{self.prefix}data/{key}")
        if content.nbytes() < numel * dtype.itemsize or content.nbytes() % dtype.itemsize:
            raise ValueError(f"storage {key} has {content.nbytes()} bytes, not {numel} numbers")
        if content.data_ptr() % dtype.itemsize:
            content = content.clone()
        return torch.empty(0, dtype=dtype).set_(content)

    def made(self, kind: Any, *_: Any) -> _Module:
        """Return an empty `_Module`; replaces copyreg._reconstructor (pickle protocols 0, 1)."""
        if kind is not self.module:
            raise _Refused(repr(kind))
        return self.module()

    def first(self, tensor: Tensor, *_: Any) -> Tensor:
        """Return a parameter's tensor; replaces torch._utils._rebuild_parameter."""
        return tensor

    def tensor(self, storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Tensor:
        """Return a tensor in a storage; replaces torch._utils._rebuild_tensor_v2."""
        return storage.as_strided(tuple(size), tuple(stride), offset)

    def cast(self, storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *more: Any) -> Tensor:
        """Return a tensor of a dtype such as float8; replaces torch._utils._rebuild_tensor_v3."""
        return self.tensor(storage.view(more[2]), offset, size, stride)


def _tensors(module: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.")
