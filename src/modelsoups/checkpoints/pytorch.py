"""Read PyTorch files (.pt, .pth, .bin, .ckpt) without running their code or copying tensors."""

import argparse
import contextlib
import io
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from modelsoups.checkpoints.foreign import AT_LIMIT
from modelsoups.checkpoints.mapped import CHANGED, MappedFile, bytes_of
from modelsoups.checkpoints.nests import chosen_state
from modelsoups.checkpoints.tensors import Checkpoint, Entry, InFile, InMemory, checkpoint_of
from modelsoups.checkpoints.torchscript import is_archive, load_archive, load_pickle
from modelsoups.checkpoints.zipped import load_zipped

OTHER_PROTOCOL = re.compile("Unsupported operand")  # torch.load knows only protocol 2
SCRIPT = "TorchScript (its code was not run)"  # the entry that stands for such an archive's tensors
SHORT = re.compile("allocate memory|not enough memory|bytes from file|Too many open files")
CODE = 2**26  # bytes of a TorchScript archive's unpacked code, which is compressed
SAFE: list[Any] = [argparse.Namespace, io.BytesIO]  # of timm and others; of _extra_state
Version = tuple[Path, int, int, int, str | None]  # file, inode, size, time of change, entry
Maps = list[tuple[int, int, int]]  # first address, end address, file offset
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
    """Return a PyTorch file's content, memory-mapped; of Python classes, only SAFE ones are loaded.

    Raises OSError if the file cannot be opened, ValueError if it is damaged, has other classes or
    does not fit into memory.
    """
    zipped = False
    with contextlib.suppress(zipfile.BadZipFile):  # raised for some damaged directories
        zipped = zipfile.is_zipfile(path)  # else of torch before 1.6, truncated, or none
    if zipped:
        _refuse_bomb(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(SAFE):
            warnings.simplefilter("ignore")  # about old pickle protocols, which load or raise
            return load_zipped(path) if zipped else torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damaged bytes make the unpickler raise almost anything
        if zipped and is_archive(path):
            return {SCRIPT: load_archive(path)}
        if zipped and OTHER_PROTOCOL.search(str(error)):
            return load_pickle(path)
        raise ValueError(f"{path} {_why_not(path, error, zipped)}") from error


def _refuse_bomb(path: Path) -> None:
    """Raise ValueError if a zip archive unpacks to more than its size; torch.save does not compress."""
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(info.file_size for info in archive.infolist())
    except Exception:  # a damaged directory leads zipfile to any of them; the reader of the file tells
        return
    if total > (size := path.stat().st_size) + CODE:
        what = f"unpacks to {total:,} bytes, but has {size:,}, although torch.save does not compress"
        raise ValueError(f"{path} {what}; it is damaged, or was made to exhaust memory; use another copy")


def _why_not(path: Path, error: Exception, zipped: bool) -> str:
    """Return the cause of an error of torch.load and what to do, as text after the file's name."""
    text = str(error)
    if isinstance(error, MemoryError) or SHORT.search(text):
        return f"cannot be read: {AT_LIMIT}"
    if code := re.search(r"GLOBAL (\S+)", text) if isinstance(error, pickle.UnpicklingError) else None:
        refused = f"contains Python objects ({code[1]}), which can run code, so it is refused"
        return f"{refused}; save model.state_dict(), best as .safetensors"
    if zipped and "corrupted" not in text:
        reason = f"{type(error).__name__}: {text.strip().partition(chr(10))[0][:200]}"
        return f"is an undamaged zip archive, but torch.load cannot read it ({reason})"
    with open(path, "rb") as file:
        start = file.read(2)
    if OTHER_PROTOCOL.search(text) and start[:1] == pickle.PROTO and start[1:] in b"\3\4\5":
        again = "load it with torch.load and save it again with torch.save's default protocol"
        return f"was saved before torch 1.6 with pickle protocol {start[1]}, not supported here; {again}"
    return "is truncated, empty or not a PyTorch checkpoint; download it or save it again"


def _unpickled(path: Path, key: str | None) -> Checkpoint:
    before = _facts(path)
    content, notes = chosen_state(read_pickle(path), path, key)
    checkpoint = checkpoint_of(content, str(path))
    checkpoint.notes = notes + checkpoint.notes
    checkpoint.files = (path,)
    _find_in_file(checkpoint, path)
    if _facts(path) != before:
        raise ValueError(f"{path} {CHANGED}")
    return checkpoint


def _facts(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _find_in_file(checkpoint: Checkpoint, path: Path) -> None:
    """Replace contiguous tensors of torch.load's memory map by their offsets in a `MappedFile`.

    Other tensors stay in torch.load's map; the file is kept with them to detect changes.
    """
    maps = _maps(path)
    if not maps:
        return
    file = MappedFile(path)
    placed: dict[str, Entry] = {}
    for name, entry in checkpoint.entries.items():
        assert isinstance(entry, InMemory)
        at, size = entry.held.data_ptr(), entry.held.nbytes
        offset = next((o + at - low for low, high, o in maps if low <= at and at + size <= high), None)
        if not entry.held.is_contiguous():
            if any(low <= at < high for low, high, _ in maps):
                placed[name] = InMemory(entry.held, file)
            continue
        if offset is None or not size:
            continue
        placed[name] = InFile(file, offset, entry.dtype, entry.shape)
        start = bytes_of(entry.held.reshape(-1)[:8]).tobytes()
        if file.read(offset, offset + len(start)).tobytes() != start:  # big-endian file: swapped
            return
    checkpoint.entries |= placed


def _maps(path: Path) -> Maps:
    """Return (first address, end address, file offset) of this process's memory maps of a file."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    found, inode = [], path.stat().st_ino
    for line in lines:
        addresses, _, offset, _, number, *name = line.split(maxsplit=5)
        if int(number) == inode and name and name[0] == str(path.resolve()):
            low, high = (int(address, 16) for address in addresses.split("-"))
            found.append((low, high, int(offset, 16)))
    return found
