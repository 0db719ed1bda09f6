"""Manifests: a folder is complete when its manifest exists, names the same inputs, and its files are there in full."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # paths and manifests are read without loading torch
    pass
from modelsoups.disk.provenance import provenance
from modelsoups.disk.storage import read_json, write_json

MANIFEST = "manifest.json"


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
