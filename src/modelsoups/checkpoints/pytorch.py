"""Read PyTorch files (.pt, .pth, .bin, .ckpt) without running their code or copying tensors."""

import argparse
import contextlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelsoups.checkpoints.tensors import Checkpoint, Entry, InFile, InMemory, MappedFile, bytes_of, checkpoint_of

# Entries of training checkpoints that contain the weights; the first one present is used.
NESTS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "ema")
Version = tuple[Path, int, int, int, str | None]  # file, inode, size, time of change, entry
Places = dict[str, tuple[int, torch.dtype, tuple[int, ...]]]  # tensor -> offset, dtype, shape


class KnownPlaces:
    """A cache of the byte offsets of the tensors in the last `limit` PyTorch files opened.

    A changed file is read again. A soup opens each file twice: to choose and to mix. Unpickling it
    twice would cost another 20 ms, 14% of the time of mixing four ViT-B/32 in memory.
    """

    def __init__(self, limit: int = 1024) -> None:
        self.limit = limit
        self.known: dict[Version, tuple[Places, dict[str, str], list[str]]] = {}

    def open(self, path: Path, key: str | None) -> Checkpoint:
        stat = path.stat()
        version = path.resolve(), stat.st_ino, stat.st_size, stat.st_mtime_ns, key
        if version in self.known:
            file, (places, tied, notes) = MappedFile(path), self.known[version]
            entries: dict[str, Entry] = {name: InFile(file, *place) for name, place in places.items()}
            return Checkpoint(str(path), entries, dict(tied), list(notes), files=(path,))
        read = _unpickled(path, key)
        stored = {name: entry[1:] for name, entry in read.entries.items() if isinstance(entry, InFile)}
        if len(stored) == len(read):
            while len(self.known) >= self.limit:
                del self.known[next(iter(self.known))]
            self.known[version] = stored, dict(read.tied), list(read.notes)
        return read


read_pytorch = KnownPlaces().open


def read_pickle(path: Path) -> object:
    """Memory-map and load a PyTorch file with weights_only=True; also allows argparse.Namespace.

    Raises OSError if the file cannot be opened, ValueError if it is damaged or has other classes.
    """
    zipped = False
    with contextlib.suppress(zipfile.BadZipFile):  # raised for some damaged directories
        zipped = zipfile.is_zipfile(path)  # if not: of torch before 1.6, truncated, or no checkpoint
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # about old pickle protocols, which load or raise
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except OSError:
        raise
    except Exception as error:  # damaged bytes make the unpickler raise almost anything
        code = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        what = "is truncated, empty or not a PyTorch checkpoint; download or save it again"
        if code:
            refused = f"contains Python objects ({code[1]}), which can run code, so it is not loaded"
            what = f"{refused}; save model.state_dict(), best as .safetensors"
        raise ValueError(f"{path} {what}") from error


def _unpickled(path: Path, key: str | None) -> Checkpoint:
    content, notes = read_pickle(path), []
    if isinstance(content, Mapping) and (key is not None or not _is_state(content)):
        found = [name for name in NESTS if _is_state(content.get(name))]
        found += [name for name, value in content.items() if name not in NESTS and _is_state(value)]
        chosen = key or next(iter(found), None)
        if chosen not in found:
            what = f"no weights in entry {key}" if key else "no state dict"
            raise ValueError(f"{path} has {what}; entries with weights: {', '.join(map(str, found)) or 'none'}")
        others = ", ".join(str(name) for name in found if name != chosen)
        notes.append(f"weights read from entry {chosen}" + (f"; not from {others} (select by key)" if others else ""))
        content = content[chosen]
    if not isinstance(content, Mapping) or not _is_state(content):
        raise ValueError(f"{path} contains a {type(content).__name__}, not a state dict; save model.state_dict()")
    checkpoint = checkpoint_of(content, str(path))
    checkpoint.notes += notes
    checkpoint.files = (path,)
    _find_in_file(checkpoint, path)
    return checkpoint


def _is_state(value: Any) -> bool:
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in value.items())


def _find_in_file(checkpoint: Checkpoint, path: Path) -> None:
    """Replace contiguous tensors of torch.load's memory map by their offsets in a `MappedFile`."""
    maps = _maps(path)
    if not maps:
        return
    file = MappedFile(path)
    placed: dict[str, Entry] = {}
    for name, entry in checkpoint.entries.items():
        assert isinstance(entry, InMemory)
        at, size = entry.held.data_ptr(), entry.held.nbytes
        offset = next((o + at - low for low, high, o in maps if low <= at and at + size <= high), None)
        if offset is None or not entry.held.is_contiguous() or not size:
            continue
        placed[name] = InFile(file, offset, entry.dtype, entry.shape)
        start = bytes_of(entry.held.reshape(-1)[:8]).tobytes()
        if file.read(offset, offset + len(start)).tobytes() != start:  # big-endian file: swapped
            return
    checkpoint.entries |= placed


def _maps(path: Path) -> list[tuple[int, int, int]]:
    """Return (first address, end address, file offset) of this process's memory maps of a file."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found, inode = [], path.stat().st_ino
    for line in lines:
        addresses, _, offset, _, number, *name = line.split(maxsplit=5)
        if int(number) == inode and name and name[0] == str(path.resolve()):
            low, high = (int(address, 16) for address in addresses.split("-"))
            found.append((low, high, int(offset, 16)))
    return found
