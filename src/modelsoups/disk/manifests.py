"""Manifests (manifest.json) mark complete folders, and record the sizes of the files in them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelsoups.disk import provenance
from modelsoups.disk.paths import MANIFEST
from modelsoups.disk.storage import read_object, write_json


def finish(folder: Path, inputs: Mapping[str, Any], files: list[Path], **facts: Any) -> None:
    """Mark a folder as complete: write a manifest of inputs, file sizes, facts and provenance."""
    sizes = {str(f.relative_to(folder)): f.stat().st_size for f in files}
    content = {"inputs": dict(inputs), "files": sizes, **facts, "provenance": provenance.record()}
    write_json(folder / MANIFEST, content)


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """Return a folder's manifest if all listed files exist with their recorded sizes, else None."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    manifest = read_object(path, "inputs", "files")
    sizes = dict(manifest["files"]).items()
    whole = all((folder / name).exists() and (folder / name).stat().st_size == size for name, size in sizes)
    return manifest if whole else None


def complete(folder: Path, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a folder's manifest if it is complete and was made from these inputs, else None."""
    manifest = manifest_of(folder)
    return manifest if manifest and manifest["inputs"] == json.loads(json.dumps(dict(inputs))) else None


def differences(recorded: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return what differs, such as "heads.lp_epochs (20, now 1)"; keys that only one side has do not count."""
    found = []
    for key in sorted(recorded.keys() & now.keys()):
        before, value = recorded[key], now[key]
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            found += differences(before, value, f"{prefix}{key}.")
        elif before != json.loads(json.dumps(value)):
            found.append(f"{prefix}{key} ({before}, now {value})")
    return found


def training_ranks(manifest: Mapping[str, Any]) -> int:
    """Return how many processes trained a model at the end of training, from its manifest."""
    layouts: list[str] = manifest.get("layouts", ["1x1"])
    return int(layouts[-1].split("x")[0])
