"""Data sets -> WebDataset shards, one folder and one manifest a set: `modelsoups prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelsoups.config.schema import Config
from modelsoups.disk import manifests
from modelsoups.experiment.sets import _library


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


def _made(folder: Path, inputs: dict[str, Any]) -> bool:
    manifest = manifests.manifest_of(folder)
    if manifest is None:
        return False
    if manifest["inputs"] != inputs:
        raise ValueError(
            f"{folder} was made with {manifest['inputs']}, now asked for {inputs}; choose another data.dir=..., "
            "or delete that folder"
        )
    return True
