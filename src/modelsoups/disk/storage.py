"""Reads and writes JSON, text and weights. Writes are atomic, and errors name the file."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelsoups.disk import temporary

if TYPE_CHECKING:  # manifests are read without loading torch
    from torch import Tensor


AWAY = "move it away, so that the file is written again"


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; then rename it to `path`, or delete it after an error.

    The temporary file exists already, empty. It is synced to disk before it is renamed, and has the
    permissions that the umask gives to new files, even if a library replaced it.
    """
    tmp = path
    try:
        _make_folder(path.parent)
        tmp = temporary.beside(path)
        mode = _create(tmp)
        yield tmp
        if os.stat(tmp).st_mode != mode:
            os.chmod(tmp, stat.S_IMODE(mode))
        _sync(tmp)
        os.replace(tmp, path)
        _sync(path.parent)
    except BaseException as error:
        if tmp != path:
            temporary.remove(tmp)
        if isinstance(error, OSError):  # a message with the final name
            raise OSError(error.errno, f"could not write {path}: {error.strerror or error}") from error
        raise


@contextlib.contextmanager
def new_folder(path: Path, keep: bool = False) -> Iterator[Path]:
    """Yield a temporary folder; then rename it to the new `path`, or delete it after an error.

    keep: if `path` exists by then, keep that one instead of raising OSError.
    """
    tmp = path
    try:
        _make_folder(path.parent)
        tmp = temporary.beside(path)
        tmp.mkdir()
        yield tmp
        for made in [*tmp.rglob("*"), tmp]:
            _sync(made)
        if keep and path.exists():
            temporary.remove(tmp)
        else:
            tmp.rename(path)
        _sync(path.parent)
    except BaseException as error:
        if tmp != path:
            temporary.remove(tmp)
        if isinstance(error, OSError):  # a message with the final name
            what = (error.strerror or str(error)).replace(str(tmp), str(path))
            raise OSError(error.errno, what if str(path) in what else f"could not write {path}: {what}") from error
        raise


def allocate(path: Path) -> None:
    """Reserve a file's blocks on the disk; raise OSError if it is full or a quota is reached.

    Writing to a memory map of a file without them would end the process with a bus error.
    """
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.posix_fallocate(descriptor, 0, os.fstat(descriptor).st_size)
    except OSError as error:
        raise OSError(error.errno, f"could not write {path}: {error.strerror}; free disk space") from error
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _own_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` for what a library writes; remove it afterwards."""
    folder = temporary.beside(path)
    folder.mkdir()
    try:
        yield folder
    finally:
        temporary.remove(folder)


def check_space(path: Path, size: int) -> None:
    """Raise OSError if the disk on which `path` lies has less than `size` bytes free."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    disk = shutil.disk_usage(folder)
    if disk.total and disk.free < size:  # a total of zero: the file system does not tell
        needed = f"the file takes {size / 1e6:,.1f} MB, but only {disk.free / 1e6:,.1f} MB are free"
        raise OSError(errno.ENOSPC, f"could not write {path}: {needed}; free disk space, or write to another disk")


def _make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, and sync these to survive a power failure."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        with contextlib.suppress(PermissionError):  # a folder may be written to and not read
            _sync(made.parent)


def _create(path: Path) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return os.fstat(descriptor).st_mode
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    with atomic(path) as tmp:
        tmp.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=False) + "\n")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raise ValueError, with the path, if it is invalid."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); {AWAY}") from error


def read_object(path: Path, *keys: str) -> dict[str, Any]:
    """Return a JSON file's object; ValueError, with the path, if it is none or lacks a key."""
    content = read_json(path)
    if not isinstance(content, dict) or any(key not in content for key in keys):
        expected = f"an object with the keys {', '.join(keys)}" if keys else "an object"
        raise ValueError(f"{path} contains other JSON than {expected}; {AWAY}")
    return content


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return one dictionary per line of a JSON Lines file; raise ValueError for an invalid line."""
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8 (byte {error.start:,}); {AWAY}") from error
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} line {number} is not valid JSON ({error})") from error
    return rows


def save_weights(path: Path, state: "Mapping[str, Tensor]") -> None:
    """Write a state dict as safetensors, atomically; equal tensors give identical files.

    The metadata has only one key, because safetensors writes several keys in random order.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic(path) as tmp, _own_folder(path) as folder:  # safetensors has a temporary file of its own
        try:
            save_file(dict(state), folder / "weights", metadata={"format": "pt"})
        except SafetensorError as error:  # for example a full disk; it does not name the file
            raise OSError(errno.EIO, str(error)) from error
        os.replace(folder / "weights", tmp)


def fingerprint(value: Any) -> str:
    """Return the first 16 hex digits of the sha256 of a JSON-like value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
