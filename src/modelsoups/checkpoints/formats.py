"""Open safetensors and PyTorch files, shards, and folders of models or trainings as `Checkpoint`.

To add a format, write a function like `_read_safetensors` and list it in READERS by file suffix.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from modelsoups.checkpoints import adapters, folders
from modelsoups.checkpoints.folders import INDEX
from modelsoups.checkpoints.foreign import AT_LIMIT, kind_of_folder, strange, told
from modelsoups.checkpoints.mapped import MappedFile
from modelsoups.checkpoints.names import without_wrappers
from modelsoups.checkpoints.pytorch import read_pytorch
from modelsoups.checkpoints.tensors import Checkpoint, Entry, InFile, checkpoint_of
from modelsoups.checkpoints.training_folders import STATES, check_states, read_training_folder
from modelsoups.disk.opening import open_to_read, text_of, utf8_name

Source = str | os.PathLike[str] | Mapping[str, Tensor]
MOST_HEADER = 2**25  # bytes; a tensor takes about 100 of them
SHARD = re.compile(r"shard-\d+-model-\d+-of-\d+\.safetensors$")
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

# What the metadata of published files say beside the tensors' ties: the first word of a key.
FACTS = re.compile(
    "format|author|title|name|license|version|description|date|tag|source|url|data|language|architecture|base_model"
    "|model|type|library|creat|comment|note|hash|modelspec|producer|framework|dtype|config|total_|step|epoch|task",
    re.IGNORECASE,
)


def _read_safetensors(path: Path, key: str | None) -> Checkpoint:
    if key is not None:
        way_out = f"leave the key {key} out"
        raise ValueError(f"{path} is a safetensors file, which has no nested entries; {way_out}")
    _check_header(path)
    try:
        with (
            utf8_name(path) as name,
            safe_open(name, "numpy") as opened,
        ):  # checks sizes, offsets and the header; "pt" maps to write
            metadata = opened.metadata() or {}
    except (MemoryError, RuntimeError) as error:  # torch and safetensors both map the file
        raise ValueError(f"{path} cannot be read: {AT_LIMIT} ({str(error)[:200]})") from error
    except SafetensorError as error:
        what = f"truncated or not a safetensors file ({error})"
        raise ValueError(f"{path} is {what}; download or save it again") from error
    if SHARD.match(path.name) and "DCP_SHARDING_INFO" in metadata:
        what = "contains one process's shards of the tensors, as DCP's HuggingFaceStorageWriter saves them"
        raise ValueError(f"{path} {what}; save with enable_consolidation=True, and give the result")
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
        if kept in entries and name not in entries and _is_tensors_name(name):
            entries[name], tied[name] = entries[kept], kept
    if not entries:
        raise ValueError(f"{path} contains no tensors")
    return Checkpoint(str(path), entries, tied, files=(path,))


def _check_header(path: Path) -> None:
    """Raise ValueError if a safetensors file's header is too large to be held in memory as objects."""
    with open(open_to_read(path), "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        held = os.fstat(file.fileno()).st_size
    if MOST_HEADER < size <= held:  # a longer one than the file is found by the reader
        what = f"has a header of {size:,} bytes, but at most {MOST_HEADER:,} are read"
        raise ValueError(f"{path} {what}: it is damaged, or has to be saved in several files")


def _is_tensors_name(key: str) -> bool:
    """Return whether a metadata key may be a tied tensor's name, not a fact such as "author"."""
    return "." in key.removeprefix("modelspec.") or not FACTS.match(key)


READERS: dict[str, Callable[[Path, str | None], Checkpoint]] = {  # by suffix
    ".safetensors": _read_safetensors,
    ".pt": read_pytorch,
    ".pth": read_pytorch,
    ".bin": read_pytorch,
    ".ckpt": read_pytorch,  # Lightning
    ".tar": read_pytorch,  # timm: .pth.tar
}
SUFFIXES = tuple(READERS)


def open_checkpoint(source: Source, key: str | None = None, adapters_too: bool = False) -> Checkpoint:
    """Open a checkpoint file, folder or state dict; a tensor is read only when it is accessed.

    key: the entry of a training checkpoint that has the weights, such as "state_dict_ema".
    adapters_too: return an `adapters.Adapter` for a PEFT folder with a LoRA adapter. Raises
    ValueError if the file is missing, truncated or of an unknown format, needs code to load, has no
    weights or no entry `key`, or if its shards do not match their index.
    """
    if isinstance(source, Checkpoint):
        return source
    if isinstance(source, Mapping):
        return without_wrappers(checkpoint_of(source))
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(f"expected a path or a state dict (model.state_dict()), not a {type(source).__name__}")
    path = Path(source)
    if adapters_too and (found := _read_adapter(path)):
        return found
    return without_wrappers(_read(path, key))


def load_state(path: Path | str) -> dict[str, Tensor]:
    """Load a file that contains one state dict and nothing else; return its tensors by name.

    Raises ValueError as `open_checkpoint` does, for a folder, and for weights in a nested entry.
    """
    path = Path(path)
    if path.suffix not in READERS or path.is_dir():
        raise ValueError(f"{path}: unknown format; expected a file ending in {', '.join(SUFFIXES)}")
    checkpoint = _read(path, None)
    if checkpoint.notes:
        note = checkpoint.notes[0]
        what = note.replace("took its", " has tensors only in its") if note.startswith("took its") else f": {note}"
        raise ValueError(f"{path}{what}; save model.state_dict()")
    return dict(checkpoint)


def _read(path: Path, key: str | None) -> Checkpoint:
    if odd := strange(path):
        raise ValueError(f"{path} {odd}")
    try:
        if path.suffix in READERS and not path.is_dir():
            if path.name.endswith(STATES):
                check_states(path)
            return READERS[path.suffix](path, key)
        if path.name.endswith(INDEX):
            return _read_shards(path, key)
        if path.is_dir():
            return _read_folder(path, key)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {told(error)}") from error
    expected = f"a folder or a file ending in {', '.join((*SUFFIXES, INDEX))}"
    raise ValueError(f"{path}: unknown format; expected {expected}")


def _read_adapter(path: Path) -> Checkpoint | None:
    """Return the LoRA adapter in a PEFT folder; None if the path is another kind of checkpoint."""
    try:
        if not adapters.is_adapter_folder(path) or any(folders.weights_in(path)):
            return None
        return adapters.adapter_of(path, _read(adapters.weights_of(path), None))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {told(error)}") from error


def _read_folder(path: Path, key: str | None) -> Checkpoint:
    try:
        parts = folders.weights_of(path, SUFFIXES)
    except ValueError as error:
        if (found := read_training_folder(path, key)) is not None:
            return found
        if kind := kind_of_folder(path):
            raise ValueError(f"{path}: {kind}") from error
        raise
    whole = Checkpoint(str(path), {}, folder=path)
    for prefix, file in parts.items():
        part = _read(file, key)
        whole.entries |= {prefix + name: entry for name, entry in part.entries.items()}
        whole.tied |= {prefix + a: prefix + b for a, b in part.tied.items()}
        where = f"{file.relative_to(path)}: " if len(parts) > 1 else ""
        whole.notes += [where + note for note in part.notes]
        whole.files += part.files
        whole.parts[prefix] = file.relative_to(path).with_name(folders.written_as(file))
    return whole


def _read_shards(index: Path, key: str | None) -> Checkpoint:
    if key is not None:
        raise ValueError(f"{index} lists the tensors of one model, without nested entries; leave the key {key} out")
    try:
        names = json.loads(text_of(index))["weight_map"]
        by_file: dict[str, list[str]] = {}
        for name, file in names.items():
            if not isinstance(file, str):
                raise TypeError
            by_file.setdefault(file, []).append(name)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{index} is not an index of shards (weight_map is missing or damaged)") from error
    if not by_file:
        raise ValueError(f"{index} lists no tensors")
    whole = Checkpoint(str(index), {}, notes=[f"{len(by_file)} shards"])
    for file, expected in by_file.items():
        path = index.parent / file
        if file != path.name or path.suffix not in READERS:
            raise ValueError(f"{index}: shard {file} is not the name of a weights file beside the index; refused")
        if not path.exists():
            raise ValueError(f"{index}: shard {file} is missing")
        if why := strange(path):
            raise ValueError(f"{index}: shard {file} {why}")
        part = READERS[path.suffix](path, None)
        if odd := sorted(set(part) ^ set(expected)):
            where = "is missing in the file" if odd[0] in expected else "is missing in the index"
            raise ValueError(f"{index}: shard {file} does not match: tensor {odd[0]} {where}; download both again")
        whole.entries.update(part.entries)
        whole.tied.update(part.tied)
        whole.files += part.files
        whole.notes += [note for note in part.notes if note not in whole.notes]
    whole.files += (index,)
    return whole
