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
    """Return the names of all configured data sets; ValueError if IconNet lacks one, or data.part of it."""
    wanted = [data.train, data.holdout, data.test, *data.shifts, *data.extra]
    for name in wanted:
        if sets.icon_set(name).projection and data.part is not None:
            raise ValueError(f"data.part={data.part}: data set {name} has other classes; leave it out of data.shifts")
    classes_of(data)
    return wanted


def classes_of(data: DataConfig) -> list[int]:
    """Return the indices of the classes in data.part; ValueError unless that is [i,n] with i below n."""
    if data.part is None:
        return list(range(len(sets.CLASSES)))
    most = len(sets.CLASSES) // 2
    if len(data.part) != 2 or not 0 <= data.part[0] < data.part[1] <= most:
        raise ValueError(f"data.part={data.part}: expected [i,n] with 0 <= i < n <= {most}")
    return list(range(data.part[0], len(sets.CLASSES), data.part[1]))


def inputs(data: DataConfig, protocol: str, name: str) -> dict[str, Any]:
    made = {"library": "iconnet", "set": name, "seed": data.seed, "version": sets.VERSION}
    return made if data.part is None else {**made, "part": data.part}


def facts(data: DataConfig, protocol: str, name: str) -> dict[str, Any]:
    spec = sets.icon_set(name)
    return {
        "name": name,
        "title": spec.title,
        "role": spec.role,
        "classes": [sets.CLASSES[c] for c in classes_of(data)],
        "templates": list(sets.TEMPLATES),
        "projection": spec.projection,
    }


def make(data: DataConfig, protocol: str, todo: Sequence[str], workers: int) -> dict[str, int]:
    return dict(run_tasks(functools.partial(_make, data, protocol), todo, workers, "prepare"))


def _make(data: DataConfig, protocol: str, name: str) -> int:
    classes = classes_of(data)
    whole = data.part is None
    rendered = images.render_set(name, data.seed) if whole else images.render_part(name, data.seed, classes)
    samples = ((key, shards.encode_png(image), "png", label) for key, image, label in rendered)
    made_from, known = inputs(data, protocol, name), facts(data, protocol, name)
    return shards.write_set(Path(data.dir) / name, samples, shards.SHARD_IMAGES, made_from, known)
