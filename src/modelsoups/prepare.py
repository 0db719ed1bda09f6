"""Data sets -> WebDataset shards, one folder and one manifest a set: `modelsoups prepare`.

Which sets there are and how they are made is known to a library, a module with names(cfg), inputs(cfg, name),
facts(cfg, name) and make(cfg, names).
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from modelsoups import runs
from modelsoups.schema import Config

LIBRARIES = {
    "iconnet": "modelsoups.data.rendered",
    "imagenet": "modelsoups.data.imagenet",
    "folders": "modelsoups.data.folders",
}


def run(cfg: Config) -> bool:
    """Make every set of the experiment that is not complete; a set made with other options is refused, not replaced."""
    library = _library(cfg)
    names: list[str] = library.names(cfg)
    todo = [name for name in names if not _made(Path(cfg.data.dir) / name, library.inputs(cfg, name))]
    if not todo:
        print(f"prepare: complete, {len(names)} data sets in {cfg.data.dir}")
        return False
    if len(todo) < len(names):
        print(f"prepare: complete: {', '.join(n for n in names if n not in todo)}")
    made: dict[str, int] = library.make(cfg, todo)
    if made:
        print(f"prepare: {', '.join(n for n in names if n in made)}: {sum(made.values()):,} images -> {cfg.data.dir}")
    return bool(made)


def available(cfg: Config) -> list[str]:
    """The sets of the experiment that are prepared, in order."""
    return [name for name in _library(cfg).names(cfg) if runs.manifest_of(Path(cfg.data.dir) / name)]


def set_inputs(cfg: Config, name: str) -> dict[str, Any]:
    """What a set is made from: its shards are complete when they were made from this."""
    made: dict[str, Any] = _library(cfg).inputs(cfg, name)
    return made


def set_facts(cfg: Config, name: str) -> dict[str, Any]:
    """What readers of a set need beside its images; see `shards.finish_set`."""
    known: dict[str, Any] = _library(cfg).facts(cfg, name)
    return known


def _library(cfg: Config) -> Any:
    return importlib.import_module(LIBRARIES[cfg.data.library])


def _made(folder: Path, inputs: dict[str, Any]) -> bool:
    manifest = runs.manifest_of(folder)
    if manifest is None:
        return False
    if manifest["inputs"] != inputs:
        raise ValueError(
            f"{folder} was made with {manifest['inputs']}, now asked for {inputs}; choose another data.dir=..., "
            "or delete that folder"
        )
    return True
