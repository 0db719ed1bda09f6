"""Data sets -> WebDataset shards, one folder and one manifest a set: `modelsoups prepare`."""

from __future__ import annotations

import functools
from itertools import islice
from pathlib import Path
from typing import Any

from modelsoups import runs
from modelsoups.config import Config
from modelsoups.data import shards
from modelsoups.parallel import run_tasks


def run(cfg: Config) -> bool:
    """Make every set of the experiment that is not complete; a set made with other options is refused, not replaced."""
    if cfg.data.library == "imagenet":
        raise ValueError("data.library=imagenet: preparing ImageNet is not part of this version; use data=iconnet")
    names = [cfg.data.train, cfg.data.holdout, cfg.data.test, *cfg.data.shifts]
    inputs = {name: set_inputs(cfg, name) for name in names}
    todo = [name for name in names if not _made(Path(cfg.data.dir) / name, inputs[name])]
    if not todo:
        print(f"prepare: complete, {len(names)} data sets in {cfg.data.dir}")
        return False
    if len(todo) < len(names):
        print(f"prepare: complete: {', '.join(n for n in names if n not in todo)}")
    from modelsoups.evaluate import workers

    total = 0
    for _, images in run_tasks(functools.partial(_iconnet, cfg), todo, workers(cfg), "prepare"):
        total += images
    print(f"prepare: {', '.join(todo)}: {total:,} images -> {cfg.data.dir}")
    return True


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


def set_inputs(cfg: Config, name: str) -> dict[str, Any]:
    """What a set is made from: its shards are complete when they were made from this."""
    from modelsoups.data.iconnet import sets

    if name not in sets.SETS:
        raise ValueError(f"data set {name}: IconNet has {', '.join(sets.SETS)}")
    return {"library": "iconnet", "set": name, "seed": cfg.data.seed, "version": sets.VERSION}


def set_facts(cfg: Config, name: str) -> dict[str, Any]:
    """What readers of a set need beside its images; see `shards.finish_set`."""
    from modelsoups.data.iconnet import sets

    spec = sets.SETS[name]
    return {
        "name": name,
        "title": spec.title,
        "role": spec.role,
        "classes": list(sets.CLASSES),
        "templates": list(sets.TEMPLATES),
        "projection": spec.projection,
    }


def _iconnet(cfg: Config, name: str) -> int:
    """Render one set into shards; the number of images."""
    from modelsoups.data.iconnet import sets

    folder = Path(cfg.data.dir) / name
    samples = (
        (key, shards.encode_png(image), "png", label) for key, image, label in sets.render_set(name, cfg.data.seed)
    )
    entries: list[dict[str, Any]] = []
    while block := list(islice(samples, shards.SHARD_IMAGES)):
        entries.append(shards.write_shard(folder / f"{name}-{len(entries):06d}.tar", block))
    shards.finish_set(folder, set_inputs(cfg, name), entries, set_facts(cfg, name))
    return sum(e["images"] for e in entries)
