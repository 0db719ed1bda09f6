"""IconNet as a library of data sets (data.library=iconnet): their names, metadata and rendering."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelsoups.config.data import DataConfig
from modelsoups.data import shards
from modelsoups.miniature import images, sets
from modelsoups.workers.processes import run_tasks


def names(data: DataConfig) -> list[str]:
    """Return the names of all configured data sets; raise ValueError if IconNet lacks one."""
    wanted = [data.train, data.holdout, data.test, *data.shifts, *data.extra]
    for name in wanted:
        sets.icon_set(name)
    return wanted


def inputs(data: DataConfig, protocol: str, name: str) -> dict[str, Any]:
    return {"library": "iconnet", "set": name, "seed": data.seed, "version": sets.VERSION}


def facts(data: DataConfig, protocol: str, name: str) -> dict[str, Any]:
    spec = sets.icon_set(name)
    return {
        "name": name,
        "title": spec.title,
        "role": spec.role,
        "classes": list(sets.CLASSES),
        "templates": list(sets.TEMPLATES),
        "projection": spec.projection,
    }


def make(data: DataConfig, protocol: str, todo: Sequence[str], workers: int) -> dict[str, int]:
    return dict(run_tasks(functools.partial(_make, data, protocol), todo, workers, "prepare"))


def _make(data: DataConfig, protocol: str, name: str) -> int:
    rendered = images.render_set(name, data.seed)
    samples = ((key, shards.encode_png(image), "png", label) for key, image, label in rendered)
    made_from, known = inputs(data, protocol, name), facts(data, protocol, name)
    return shards.write_set(Path(data.dir) / name, samples, shards.SHARD_IMAGES, made_from, known)
