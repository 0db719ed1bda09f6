"""ImageNet, its hold-out and its test sets, from the files that people have: a library of `prepare`.

`make` first lists every image of every set, splits off the hold-out and checks counts and disk space, so that what is
missing is said before hours of work; then all shards of all sets are written side by side.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from modelsoups.config.schema import Config
from modelsoups.data.imagenet import counts, holdout, metadata, planning, relabel, sources, writing
from modelsoups.disk import manifests
from modelsoups.workers.processes import cores, run_tasks

VERSION = 1  # of what this code writes: sets of another version are made again
RELABELLED = ("real", "multilabel")  # sets over val's shards


def names(cfg: Config) -> list[str]:
    """The sets of the experiment, in order; ValueError for one that there is not."""
    data = cfg.data
    wanted = list(dict.fromkeys([data.train, data.holdout, data.test, *data.shifts, *data.extra]))
    for name in wanted:
        if name not in metadata.SETS:
            raise ValueError(f"data set {name}: ImageNet has {', '.join(metadata.SETS)}")
    return wanted


def inputs(cfg: Config, name: str) -> dict[str, Any]:
    """What a set is made from: the options that change it. The form of the files makes no difference."""
    spec, data = metadata.SETS[name], cfg.data
    made: dict[str, Any] = {"library": "imagenet", "set": name, "version": VERSION}
    if name in RELABELLED:
        return {**made, "over": inputs(cfg, relabel.OVER), "file": relabel.file_sha256(name, _given(cfg, name))}
    made["shard_images"] = data.shard_images
    if spec.layout == "train":
        made["holdout"] = holdout.rule(data.holdout_per_class, data.holdout_file)
    if spec.role == "train":
        made["resize"] = data.train_resize
    if border := metadata.border(name, cfg.protocol):
        made["border"] = border
    return made


def facts(cfg: Config, name: str) -> dict[str, Any]:
    """What readers of a set need beside its images; see `shards.finish_set`."""
    spec = metadata.SETS[name]
    return {
        "name": name,
        "title": spec.title,
        "role": spec.role,
        "classes": metadata.class_names(),
        "templates": metadata.templates(),
        "projection": metadata.projection(name),
        "border": metadata.border(name, cfg.protocol),
        "labels": metadata.label_names(name),
    }


def make(cfg: Config, todo: Sequence[str]) -> dict[str, int]:
    """Make the sets whose files are there, and say which are not, and why; the number of images of each one made."""
    folder = Path(cfg.data.dir)
    with _lock(folder):
        found = _find(cfg, [name for name in todo if name not in RELABELLED])
        made = _write(cfg, _plans(cfg, found))
        for name in todo:
            if name in RELABELLED and (images := _relabel(cfg, name)):
                made[name] = images
        shutil.rmtree(folder / planning.SPOOL, ignore_errors=True)
    return made


def _workers(cfg: Config) -> int:
    return cfg.data.workers or cores()


def _given(cfg: Config, name: str) -> str | None:
    """data.sources' place of a set."""
    place: str | None = getattr(cfg.data.sources, "train" if name == "holdout" else name)
    return place


def _find(cfg: Config, todo: Sequence[str]) -> dict[str, sources.Source]:
    """The source of each set that has one; ValueError when there is none and nothing was prepared before."""
    found = {name: sources.find(name, cfg.data.root, _given(cfg, name)) for name in todo}
    missing = {name: why for name, why in found.items() if isinstance(why, str)}
    prepared = any(manifests.manifest_of(Path(cfg.data.dir) / name) for name in names(cfg))
    if missing and len(missing) == len(found) and not prepared:
        if cfg.data.root is None:
            raise ValueError("data.root is not set: the folder of ImageNet's files; conf/data/imagenet.yaml says which")
        raise ValueError(f"data.root={cfg.data.root} holds no set of ImageNet: {'; '.join(missing.values())}")
    for name, why in found.items():
        print(f"prepare: {name}: " + (f"not available: {why}" if isinstance(why, str) else str(why)))
    return {name: source for name, source in found.items() if not isinstance(source, str)}


def _plans(cfg: Config, found: dict[str, sources.Source]) -> list[planning.Plan]:
    """Every set listed, split and checked, before anything is written."""
    listings = planning.listings(cfg, found, _workers(cfg))
    plans = [
        planning.plan(cfg, inputs(cfg, name), facts(cfg, name), found[name], listing)
        for name, listing in listings.items()
    ]
    needed = sum(plan.bytes_needed for plan in plans)
    counts.free_space(Path(cfg.data.dir), needed, ", ".join(listings))
    return plans


def _write(cfg: Config, plans: list[planning.Plan]) -> dict[str, int]:
    """Write what is missing of all sets; each gets its manifest with its last shard."""
    made = {plan.folder.name: plan.finish() for plan in plans if not plan.todo}
    plan_of = {plan.folder: plan for plan in plans}
    tasks = [shard for plan in plans for shard in plan.todo]
    if kept := sum(len(plan.done) for plan in plans):
        print(f"prepare: {kept:,} of {kept + len(tasks):,} shards are there")
    for shard, entry in run_tasks(writing.write, tasks, _workers(cfg), "prepare", size=len):
        plan = plan_of[shard.tar.parent]
        plan.done[shard.tar.name] = entry
        if not plan.todo:
            made[plan.folder.name] = plan.finish()
    return made


def _relabel(cfg: Config, name: str) -> int:
    """Make ReaL or multilabel beside a complete val; 0 images when its files are not there."""
    folder, file = Path(cfg.data.dir) / name, _given(cfg, name)
    why = None
    if manifests.manifest_of(folder.parent / relabel.OVER) is None:
        why = f"it relabels {relabel.OVER}, which is not prepared"
    elif name == "multilabel" and file is None:
        why = "data.sources.multilabel=FILE must name human_accuracy_v3.0.0.json"
    if why:
        print(f"prepare: {name}: not available: {why}")
        return 0
    table = relabel.answers(name, file, cfg.data.check_counts)
    return relabel.write(folder, inputs(cfg, name), table, facts(cfg, name))


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Keep a second prepare out of the folder. The system releases the lock when the process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise ValueError(f"another `modelsoups prepare` is writing {folder}; wait for it to end") from None
