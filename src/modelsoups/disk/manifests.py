"""Manifests: a folder is complete if its manifest exists and its files have the recorded sizes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelsoups.disk import provenance
from modelsoups.disk.paths import MANIFEST
from modelsoups.disk.storage import read_object, write_json


def finish(folder: Path, inputs: Mapping[str, Any], files: list[Path], **facts: Any) -> None:
    """Write the folder's manifest: inputs, sizes of the files, additional facts, provenance."""
    sizes = {str(f.relative_to(folder)): f.stat().st_size for f in files}
    content = {"inputs": dict(inputs), "files": sizes, **facts, "provenance": provenance.record()}
    write_json(folder / MANIFEST, content)


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """Return the folder's manifest if every listed file has its recorded size, otherwise None."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    manifest = read_object(path, "inputs", "files")
    sizes = dict(manifest["files"]).items()
    whole = all((folder / name).exists() and (folder / name).stat().st_size == size for name, size in sizes)
    return manifest if whole else None


def complete(folder: Path, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the manifest if the folder is complete and has these inputs, otherwise None."""
    manifest = manifest_of(folder)
    return manifest if manifest and manifest["inputs"] == json.loads(json.dumps(dict(inputs))) else None


def training_ranks(manifest: Mapping[str, Any]) -> int:
    """Return how many processes last trained an ingredient; "2x1" is processes x parts."""
    layouts: list[str] = manifest.get("layouts", ["1x1"])
    return int(layouts[-1].split("x")[0])
