"""Reads and writes JSON, text and weights. Writes are atomic, and errors name the file."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # manifests are read without loading torch
    from torch import Tensor


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; then rename it to `path`, or delete it after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield tmp
        with open(tmp, "rb") as f:
            os.fsync(f.fileno())
        os.replace(tmp, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException as error:
        with contextlib.suppress(OSError):
            tmp.unlink()
        if isinstance(error, OSError):  # a message with the final name
            raise OSError(error.errno, f"could not write {path}: {error.strerror or error}") from error
        raise


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
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); delete it so that it is written again") from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return one dictionary per line of a JSON Lines file; raise ValueError for an invalid line."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path} line {number} is not valid JSON ({error}); correct this line") from error
    return rows


def save_weights(path: Path, state: "Mapping[str, Tensor]") -> None:
    """Write a state dict as safetensors, atomically; equal tensors give identical files.

    The metadata has only one key, because safetensors writes several keys in random order.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic(path) as tmp:
        try:
            save_file(dict(state), tmp, metadata={"format": "pt"})
        except SafetensorError as error:  # for example a full disk; it does not name the file
            raise OSError(errno.EIO, str(error)) from error


def fingerprint(value: Any) -> str:
    """Return the first 16 hex digits of the sha256 of a JSON-like value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
