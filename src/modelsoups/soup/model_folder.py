"""Writes the folder of a soup: the averaged weights, and files copied from the first ingredient.

Copied are configuration, tokenizer and code. Left out, and listed in a note, are the state and the
results of one training run, and weights in other formats.
"""

import contextlib
import filecmp
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import torch
from torch import Tensor

from modelsoups.checkpoints.dcp_metadata import METADATA
from modelsoups.checkpoints.folders import INDEX, subfolders
from modelsoups.checkpoints.formats import SUFFIXES
from modelsoups.checkpoints.layouts import check_layouts
from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.disk import paths, storage
from modelsoups.disk.opening import text_of
from modelsoups.soup.dcp_folder import write_dcp
from modelsoups.weights import digests as digest
from modelsoups.weights.mixing import Facts, mix_to_file
from modelsoups.weights.state_dicts import EVERYTHING, Coefficients, check_groups, of_group

COPIED = (".json", ".txt", ".model", ".jinja", ".spm", ".tiktoken", ".bpe", ".py")
OTHER_WEIGHTS = (INDEX, ".h5", ".msgpack", ".ot", ".onnx", ".onnx_data", ".gguf", ".xml", ".npz", ".distcp")
# What one training run leaves: its state, its results, and how it went.
OF_ONE_RUN = ("train*", "optimizer*", "rng_state*", "random_states*", "latest", "events.out.*")
RESULTS = ("*results*", "*metrics*", "*_history.json", "log.json", "logs.json", "log_*.json", "*_log.json", "*log.txt")
OURS = (paths.MANIFEST, paths.RECIPE, paths.FAILED, paths.PROVENANCE, "soup.json")
CARDS = ("readme*", "adapter_config.json")  # of one ingredient; an adapter is not mixed


@dataclass
class Files:
    """The files of a folder that are copied, copied only if equal in all folders, or left out."""

    copied: list[str] = field(default_factory=list)
    compared: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # a folder's name ends in /


def write_weights(
    folder: Path,
    checkpoints: Sequence[Checkpoint],
    coefficients: Coefficients,
    facts: Facts,
    replaced: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
) -> list[str]:
    """Average every model in the checkpoints' folders into `folder`, and return notes.

    Arguments are as for `mix_to_file`. A distributed checkpoint is written as one (`write_dcp`).
    Several models get the same metadata, and the checkpoints are read once more for their digests.
    """
    parts = checkpoints[0].parts
    if parts.get("", Path()).name == METADATA:
        return write_dcp(folder / parts[""].parent, checkpoints, coefficients, facts, replaced, dtype)
    if len(parts) == 1:
        return mix_to_file(checkpoints, coefficients, folder / parts[""], facts, replaced, dtype)
    check_layouts(checkpoints)
    check_groups(checkpoints[0], coefficients)
    known = facts(tuple(map(digest.digest, checkpoints)))
    notes = [f"{checkpoint.name}: {note}" for checkpoint in checkpoints for note in checkpoint.notes]
    for prefix, file in parts.items():
        some = [_part(checkpoint, prefix, parts) for checkpoint in checkpoints]
        rows = coefficients
        if set(coefficients) != {EVERYTHING}:
            rows = {key: of_group(prefix + key, coefficients) for key in some[0]}
        instead = {key: replaced[prefix + key] for key in some[0] if prefix + key in replaced}
        found = mix_to_file(some, rows, folder / file, lambda digests: known, instead, dtype)
        notes += [f"{file}: {note}" for note in found]
    return notes


def _part(checkpoint: Checkpoint, prefix: str, parts: Mapping[str, Path]) -> Checkpoint:
    """Return one of a folder's models: the tensors named `prefix`..., with the prefix removed."""

    def is_of_part(name: str) -> bool:
        return max((p for p in parts if name.startswith(p)), key=len) == prefix

    entries = {key[len(prefix) :]: entry for key, entry in checkpoint.entries.items() if is_of_part(key)}
    tied = {a[len(prefix) :]: b[len(prefix) :] for a, b in checkpoint.tied.items() if is_of_part(a)}
    name = f"{checkpoint.name}/{prefix}".rstrip("/")
    return Checkpoint(name, entries, tied, files=checkpoint.files)


def copy_rest(checkpoints: Sequence[Checkpoint], out: Path, dtype: torch.dtype | None = None) -> list[str]:
    """Copy configuration, tokenizer and code from the first checkpoint's folder to `out`.

    dtype: that of the weights in `out`, if it is not the checkpoints'. Returns notes that list
    code, files that differ between the folders, and files left out.
    """
    folders = [c.folder for c in checkpoints if c.folder is not None]
    sorted_out = [_sorted_out(c) for c in checkpoints if c.folder is not None]
    first, files = folders[0], sorted_out[0]
    agreed = [name for name in files.compared if all(_same(first, other, name) for other in folders[1:])]
    copied = sorted([*files.copied, *agreed])
    for name in copied:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(first / name, out / name)
    if dtype is not None:
        _set_dtype(out / "config.json", dtype)
    notes = []
    if code := [name for name in copied if name.endswith(".py")]:
        notes.append(f"{', '.join(code)}: code of {first}, copied; libraries run it only with trust_remote_code=True")
    if odd := [name for name in copied if not all(_same(first, other, name) for other in folders[1:])]:
        notes.append(f"{', '.join(odd)}: not the same in all folders; those of {first} were copied")
    left = {name for found in sorted_out for name in [*found.copied, *found.compared, *found.left]} - set(copied)
    if left:
        what = "files of one training run, other weights, or different between the folders"
        notes.append(f"left out of the folder ({what}): {', '.join(sorted(left))}")
    return notes


def _set_dtype(path: Path, dtype: torch.dtype) -> None:
    """Change the dtype in a config.json, if it exists and has one: libraries convert the weights to it."""
    content = json.loads(text_of(path)) if path.exists() else None
    keys = [key for key in ("dtype", "torch_dtype") if isinstance(content, dict) and isinstance(content.get(key), str)]
    if content is not None and keys:
        named = dict.fromkeys(keys, str(dtype).removeprefix("torch."))
        storage.write_text(path, json.dumps({**content, **named}, indent=2) + "\n")


def _sorted_out(checkpoint: Checkpoint) -> Files:
    """Return which of a checkpoint's files, but the mixed weights, are copied or left out."""
    assert checkpoint.folder is not None
    folder, found = checkpoint.folder, Files()
    own = {folder, *subfolders(folder), *(file.parent for file in checkpoint.files)}

    def look(place: Path) -> None:
        for path in sorted(place.iterdir()):
            name = path.relative_to(folder).as_posix()
            if path in checkpoint.files or fnmatch(path.name, ".*.tmp"):  # mixed, or ours and unfinished
                continue
            if path.is_dir():
                if path in own:
                    look(path)
                elif _is_plain(path):
                    found.copied += [p.relative_to(folder).as_posix() for p in sorted(path.rglob("*")) if p.is_file()]
                else:
                    found.left.append(f"{name}/")
            elif _is_of_one(path):
                found.left.append(name)
            else:
                (found.copied if _is_copied(path) else found.compared).append(name)

    look(folder)
    return found


def _is_plain(folder: Path) -> bool:
    """Return whether a subfolder has only files that are always copied, such as chat templates."""
    if folder.is_symlink() or folder.name.startswith("."):
        return False
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    return bool(files) and all(_is_copied(path) and not _is_of_one(path) for path in files)


def _is_of_one(path: Path) -> bool:
    """Return whether a path is left out: of one training run, other weights, hidden, or no file."""
    name = path.name.lower()
    patterns: tuple[str, ...] = (*OF_ONE_RUN, *RESULTS, *OURS, *CARDS)
    if name.endswith(".py"):  # a model's code may have any name; this script is DeepSpeed's
        patterns = ("zero_to_fp32.py",)
    unfit = name.startswith(".") or not path.is_file()
    return unfit or name.endswith((*SUFFIXES, *OTHER_WEIGHTS)) or any(fnmatch(name, p) for p in patterns)


def _is_copied(path: Path) -> bool:
    return path.suffix.lower() in COPIED or path.name.upper().startswith(("LICENSE", "LICENCE", "NOTICE"))


def _same(first: Path, other: Path, name: str) -> bool:
    return (other / name).is_file() and filecmp.cmp(first / name, other / name, shallow=False)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder, renamed to `path` on success; ValueError if `path` exists."""
    if path.exists() or path.is_symlink():
        raise ValueError(f"{path} exists; give the name of a new folder")
    with storage.new_folder(path) as tmp:
        yield tmp
