"""Open safetensors and PyTorch files, shards and Hugging Face folders as a `Checkpoint`.

To add a format, write a function like `_read_safetensors` and list it in READERS by file suffix.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from modelsoups.checkpoints.pytorch import read_pytorch
from modelsoups.checkpoints.tensors import Checkpoint, Entry, InFile, MappedFile, checkpoint_of
from modelsoups.disk import paths

Source = str | os.PathLike[str] | Mapping[str, Tensor]
WRAPPERS = ("module.", "_orig_mod.")  # prefixes of DistributedDataParallel and torch.compile
INDEX = ".index.json"
WHOLE = (paths.MODEL, "pytorch_model.bin")  # weight files of a folder, in the order they are tried
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


def _read_safetensors(path: Path, key: str | None) -> Checkpoint:
    if key is not None:
        raise ValueError(f"{path} is a safetensors file, which has no nested entries; leave out key={key}")
    try:
        with safe_open(path, "pt") as opened:  # checks sizes, offsets and the header
            metadata = opened.metadata() or {}
    except SafetensorError as error:
        what = f"truncated or not a safetensors file ({error})"
        raise ValueError(f"{path} is {what}; download or save it again") from error
    file = MappedFile(path)
    length = int.from_bytes(file.read(0, 8).tobytes(), "little")
    header = json.loads(file.read(8, 8 + length).tobytes())
    header.pop("__metadata__", None)
    entries: dict[str, Entry] = {}
    tied: dict[str, str] = {}
    for name, info in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if info["dtype"] not in DTYPES:
            raise ValueError(f"{path}: tensor {name} has dtype {info['dtype']}; expected one of {', '.join(DTYPES)}")
        start = 8 + length + info["data_offsets"][0]
        entries[name] = InFile(file, start, DTYPES[info["dtype"]], tuple(info["shape"]))
    for name, kept in metadata.items():  # how safetensors' save_model marks tied tensors
        if kept in entries and name not in entries:
            entries[name], tied[name] = entries[kept], kept
    if not entries:
        raise ValueError(f"{path} contains no tensors")
    return Checkpoint(str(path), entries, tied, files=(path,))


READERS: dict[str, Callable[[Path, str | None], Checkpoint]] = {  # by suffix
    ".safetensors": _read_safetensors,
    ".pt": read_pytorch,
    ".pth": read_pytorch,
    ".bin": read_pytorch,
    ".ckpt": read_pytorch,  # Lightning
    ".tar": read_pytorch,  # timm: .pth.tar
}
SUFFIXES = tuple(READERS)


def open_checkpoint(source: Source, key: str | None = None) -> Checkpoint:
    """Open a checkpoint file, folder or state dict; a tensor is read only when it is accessed.

    key: the entry of a PyTorch training checkpoint that has the weights, such as "state_dict_ema".
    Raises ValueError if the file is missing, truncated or of an unknown format, contains Python
    objects, has no weights or no entry `key`, or if its shards do not match their index.
    """
    if isinstance(source, Checkpoint):
        return source
    if isinstance(source, Mapping):
        return _without_wrappers(checkpoint_of(source))
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(f"got a {type(source).__name__}; expected a path or a state dict such as model.state_dict()")
    return _without_wrappers(_read(Path(source), key))


def load_state(path: Path | str) -> dict[str, Tensor]:
    """Load a file that contains one state dict and nothing else; return its tensors by name.

    Raises ValueError as `open_checkpoint` does, for a folder, and for weights in a nested entry.
    """
    path = Path(path)
    if path.suffix not in READERS or path.is_dir():
        raise ValueError(f"{path}: unknown format; expected a file ending in {', '.join(SUFFIXES)}")
    checkpoint = _read(path, None)
    if checkpoint.notes:
        nested = checkpoint.notes[0].removeprefix("weights read from ")
        raise ValueError(f"{path} has tensors only in its {nested}; save only model.state_dict() to it")
    return dict(checkpoint)


def _read(path: Path, key: str | None) -> Checkpoint:
    try:
        if path.suffix in READERS and not path.is_dir():
            return READERS[path.suffix](path, key)
        if path.name.endswith(INDEX):
            return _read_shards(path)
        if path.is_dir():
            return _read_folder(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    raise ValueError(f"{path}: unknown format; expected a folder or a file ending in {', '.join((*SUFFIXES, INDEX))}")


def _read_folder(path: Path) -> Checkpoint:
    for name in WHOLE:
        for file in (path / name, path / f"{name}{INDEX}"):
            if file.exists():
                checkpoint = _read(file, None)
                checkpoint.name, checkpoint.folder = str(path), path
                return checkpoint
    raise ValueError(f"{path}: no weights in this folder; expected {' or '.join(WHOLE)}, or shards with {INDEX}")


def _read_shards(index: Path) -> Checkpoint:
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        by_file: dict[str, list[str]] = {}
        for name, file in names.items():
            if not isinstance(file, str):
                raise TypeError
            by_file.setdefault(file, []).append(name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is not a shard index: weight_map is missing or damaged") from error
    if not by_file:
        raise ValueError(f"{index} lists no tensors")
    whole = Checkpoint(str(index), {}, notes=[f"{len(by_file)} shards"])
    for file, expected in by_file.items():
        path = index.parent / file
        if file != path.name or path.suffix not in READERS:
            raise ValueError(f"{index}: shard {file} is not the name of a weights file in the index's folder")
        if not path.is_file():
            raise ValueError(f"{index}: shard {file} is missing; download it too")
        part = READERS[path.suffix](path, None)
        if odd := sorted(set(part) ^ set(expected)):
            where = "is missing in the file" if odd[0] in expected else "is missing in the index"
            raise ValueError(f"{index}: shard {file} does not match: tensor {odd[0]} {where}; download both again")
        whole.entries.update(part.entries)
        whole.tied.update(part.tied)
        whole.files += part.files
    whole.files += (index,)
    return whole


def _without_wrappers(checkpoint: Checkpoint) -> Checkpoint:
    """Remove the prefix of DistributedDataParallel or torch.compile if all tensor names have it."""
    while prefix := next((p for p in WRAPPERS if all(key.startswith(p) for key in checkpoint)), None):
        checkpoint.entries = {key.removeprefix(prefix): entry for key, entry in checkpoint.entries.items()}
        checkpoint.tied = {a.removeprefix(prefix): b.removeprefix(prefix) for a, b in checkpoint.tied.items()}
        checkpoint.notes.append(f"prefix {prefix} removed")
    return checkpoint
