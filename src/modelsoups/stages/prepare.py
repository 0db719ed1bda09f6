"""Data sets -> WebDataset shards, one folder and one manifest a set: `modelsoups prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelsoups.config.schema import Config
from modelsoups.disk import manifests
from modelsoups.experiment.sets import library
from modelsoups.workers.processes import cores


def run(cfg: Config) -> bool:
    """Make every set of the experiment that is not complete; a set made with other options is refused, not replaced."""
    data, source = cfg.data, library(cfg.data)
    names: list[str] = source.names(data)
    todo = []
    for name in names:
        if not _made(Path(data.dir) / name, source.inputs(data, cfg.protocol, name)):
            todo.append(name)
    if not todo:
        print(f"prepare: complete, {len(names)} data sets in {data.dir}")
        return False
    if len(todo) < len(names):
        print(f"prepare: complete: {', '.join(n for n in names if n not in todo)}")
    workers = data.workers or cores()
    made: dict[str, int] = source.make(data, cfg.protocol, todo, workers)
    if made:
        print(f"prepare: {', '.join(n for n in names if n in made)}: {sum(made.values()):,} images -> {data.dir}")
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
