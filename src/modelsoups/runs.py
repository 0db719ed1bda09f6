"""The one module that owns every path on disk: atomic writes, manifests written last, provenance.

A folder or file counts as complete when its manifest exists, names the same inputs and the files it lists are there
in full. Everything else is partial and is made again.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import functools
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # paths and manifests are read without loading torch
    from torch import Tensor

MANIFEST = "manifest.json"


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success fsync it and rename it to `path`, else remove it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield tmp
        with open(tmp, "rb") as f:
            os.fsync(f.fileno())
        os.replace(tmp, path)
        _fsync_dir(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            tmp.unlink()
        if isinstance(error, OSError):  # the disk's words, with the file that was meant
            raise OSError(error.errno, f"could not write {path}: {error.strerror or error}") from error
        raise


def _fsync_dir(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_text(path: Path, text: str) -> None:
    with atomic(path) as tmp:
        tmp.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=False) + "\n")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    """Parse a JSON file; a damaged one raises ValueError naming the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); delete it to make it again") from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path} line {number} is not valid JSON ({error})") from error
    return rows


def save_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state dict as safetensors, atomically; the same tensors give the same bytes.

    More than one key of metadata would not: the library writes them in random order.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic(path) as tmp:
        try:
            save_file(dict(state), tmp, metadata={"format": "pt"})
        except SafetensorError as error:  # a full disk: the library gives neither an OSError nor the file's name
            raise OSError(errno.EIO, str(error)) from error


def fingerprint(value: Any) -> str:
    """Sixteen hex digits that name a JSON-like value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@functools.cache
def code(*parts: str) -> str:
    """Sixteen hex digits that name what modules or packages of ours do ("evaluate", "core"); comments do not count."""
    root, text = Path(__file__).parent, dict[str, str]()
    for part in parts:
        files = sorted((root / part).rglob("*.py")) or [root / f"{part}.py"]
        text |= {str(f.relative_to(root)): ast.dump(ast.parse(f.read_text(encoding="utf-8"))) for f in files}
    return fingerprint(text)


def file_sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def finish(folder: Path, inputs: Mapping[str, Any], files: list[Path], **facts: Any) -> None:
    """Write the folder's manifest, last: what it was made from, its files with their sizes, and provenance."""
    sizes = {str(f.relative_to(folder)): f.stat().st_size for f in files}
    write_json(folder / MANIFEST, {"inputs": dict(inputs), "files": sizes, **facts, "provenance": provenance()})


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """The folder's manifest if all of its files are there in full, else None."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    manifest: dict[str, Any] = read_json(path)
    for name, size in manifest["files"].items():
        file = folder / name
        if not file.exists() or file.stat().st_size != size:
            return None
    return manifest


def complete(folder: Path, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest if the folder is complete and was made from these inputs, else None."""
    manifest = manifest_of(folder)
    return manifest if manifest is not None and manifest["inputs"] == json.loads(json.dumps(dict(inputs))) else None


def provenance() -> dict[str, Any]:
    """What made a result: code version and commit, argv, packages, machine, time."""
    packages = {}
    for name in ("torch", "torchvision", "open_clip_torch", "timm", "webdataset", "hydra-core", "numpy", "pillow"):
        with contextlib.suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {
        "modelsoups": version("modelsoups"),
        "commit": commit(),
        "command": " ".join(["modelsoups", *sys.argv[1:]]),
        "python": platform.python_version(),
        "packages": packages,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def commit() -> str | None:
    """The git commit of the source checkout, with "+" when it has changes; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if dirty else "")


class Run:
    """Every path of one experiment. `root` holds what a run makes, `results` what people look at."""

    def __init__(self, root: Path, results: Path) -> None:
        self.root, self.results = root, results
        self.draw = root / "draw.jsonl"
        self.draw_manifest = root / "draw.json"
        self.ingredients = root / "ingredients"
        self.slurm = root / "slurm"  # scripts as submitted, output of jobs, requests to stop
        self.soups = root / "soups"
        self.wandb = root / "wandb"  # what has been logged to W&B, and its own files
        self.pools = root / "pools"  # further runs that the analyses compare
        self.analyses = results / "analysis"
        self.timings = root / "timings.json"
        self.log = root / "modelsoups.log"

    def head(self, init: str) -> Path:
        """Folder of an initial model: encoder and head before fine-tuning (theta_0)."""
        return self.root / "init" / init

    def ingredient(self, index: int) -> Path:
        return self.ingredients / f"{index:03d}"

    def logits(self, model_sha256: str, dataset: str, dataset_sha256: str) -> Path:
        return self.root / "logits" / model_sha256[:16] / f"{dataset}-{dataset_sha256[:12]}.safetensors"

    def point(self, key: str) -> Path:
        """What was measured of one soup in the analyses."""
        return self.root / "points" / key[:2] / f"{key}.json"

    def soup(self, name: str) -> Path:
        return self.soups / f"{name}.json"

    def mixed(self, name: str) -> Path:
        return self.soups / f"{name}.safetensors"
