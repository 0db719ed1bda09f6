"""Prepares ImageNet, its hold-out and its test sets as tar shards, for `modelsoups prepare`.

`make` first lists all images, splits off the hold-out, and checks image counts and disk space. Only
then does it write shards, so that missing files are reported before hours of work.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from modelsoups.config.data import DataConfig
from modelsoups.data.imagenet import counts, holdout, metadata, planning, projections, relabelled, sources, writing
from modelsoups.data.shards import Json
from modelsoups.data.storing import Storing
from modelsoups.disk import manifests
from modelsoups.workers.processes import Size, run_tasks

VERSION = 1  # version of the sets that this code writes; others are rewritten


def names(data: DataConfig) -> list[str]:
    """Return the names of the experiment's data sets; raise ValueError for an unknown name."""
    wanted = [data.train, data.holdout, data.test, *data.shifts, *data.extra]
    for name in wanted:
        if name not in metadata.SETS:
            raise ValueError(f"unknown data set {name}; choose from {metadata.choices()}")
    return list(dict.fromkeys(wanted))


def inputs(data: DataConfig, protocol: str, name: str) -> Json:
    """Return the options that determine a data set's content, whatever its original file format."""
    spec = metadata.SETS[name]
    made: Json = {"library": "imagenet", "set": name, "version": VERSION}
    if name in relabelled.AVERAGE:
        over = inputs(data, protocol, relabelled.OVER)
        return {**made, "over": over, "file": relabelled.file_sha256(name, _given(data, name))}
    made["shard_images"] = data.shard_images
    if spec.layout == "train":
        made["holdout"] = holdout.rule(data.holdout_per_class, data.holdout_file)
    if spec.role == "train":
        made |= Storing.of(data, training=True).identity()
    if border := metadata.border(name, protocol):
        made["border"] = border
    return made


def facts(data: DataConfig, protocol: str, name: str) -> Json:
    spec = metadata.SETS[name]
    return {
        "name": name,
        "title": spec.title,
        "role": spec.role,
        "classes": metadata.class_names(),
        "templates": metadata.templates(),
        "projection": projections.projection(name),
        "border": metadata.border(name, protocol),
        "labels": projections.label_names(name),
        **({"several": True} if spec.layout == "hard" else {}),
    }


def make(data: DataConfig, protocol: str, todo: Sequence[str], workers: int) -> dict[str, int]:
    """Write the sets in todo whose files exist, print the others; return image counts by set."""
    folder = Path(data.dir)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout:
        way_out = "wait until it finishes"
        raise ValueError(f"another `modelsoups prepare` is writing {folder}; {way_out}") from None
    with lock:
        found = find_sources(data, [name for name in todo if name not in relabelled.AVERAGE])
        made = _write(_plans(data, protocol, found, workers), workers)
        for name in todo:
            if name in relabelled.AVERAGE and (images := _relabel(data, protocol, name)):
                made[name] = images
        shutil.rmtree(folder / planning.PARQUET_COPIES, ignore_errors=True)
    return made


def find_sources(data: DataConfig, todo: Sequence[str]) -> dict[str, sources.Source]:
    """Find the sets' original files; ValueError if none is found and no set is prepared yet."""
    places = {name: sources.find(name, data.root, _given(data, name)) for name in todo}
    found = {name: place for name, place in places.items() if isinstance(place, sources.Source)}
    missing = [place for place in places.values() if isinstance(place, str)]
    prepared = any(manifests.manifest_of(Path(data.dir) / name) for name in names(data))
    if missing and not found and not prepared:
        if data.root is None:
            way_out = "set it to ImageNet's folder (see conf/data/imagenet.yaml)"
            raise ValueError(f"data.root is not set; {way_out}")
        raise ValueError(f"data.root={data.root} has no ImageNet data set: {'; '.join(missing)}")
    for name, place in places.items():
        print(f"prepare: {name}: {place if name in found else f'not available: {place}'}")
    return found


def _given(data: DataConfig, name: str) -> str | None:
    """Return the path that data.sources gives for a data set, or None."""
    found: str | None = getattr(data.sources, metadata.source_key(name))
    return found


def _plans(data: DataConfig, protocol: str, found: dict[str, sources.Source], workers: int) -> list[planning.SetPlan]:
    plans = []
    for name, listing in planning.listings(data, found, workers).items():
        made_from, known = inputs(data, protocol, name), facts(data, protocol, name)
        plans.append(planning.plan_set(data, made_from, known, found[name], listing))
    needed = sum(plan.bytes_needed for plan in plans)
    counts.check_free_space(Path(data.dir), needed, ", ".join(found))
    return plans


def _write(plans: list[planning.SetPlan], workers: int) -> dict[str, int]:
    """Write all missing shards and the manifests of complete sets; return image counts by set."""
    made = {plan.folder.name: plan.finish() for plan in plans if not plan.todo}
    plan_of = {plan.folder: plan for plan in plans}
    tasks = [shard for plan in plans for shard in plan.todo]
    if done := sum(len(plan.done) for plan in plans):
        print(f"prepare: {done:,} of {done + len(tasks):,} shards are already written")
    for shard, entry in run_tasks(writing.write, tasks, workers, "prepare", Size(len, "images")):
        plan = plan_of[shard.tar.parent]
        plan.done[shard.tar.name] = entry
        if not plan.todo:
            made[plan.folder.name] = plan.finish()
    return made


def _relabel(data: DataConfig, protocol: str, name: str) -> int:
    """Write a set that has new labels for val, such as `real`; return the image count (0: no files)."""
    folder, file = Path(data.dir) / name, _given(data, name)
    if manifests.manifest_of(folder.parent / relabelled.OVER) is None:
        print(f"prepare: {name}: not available: it needs {relabelled.OVER}, which is not prepared")
        return 0
    key = metadata.source_key(name)
    if file is None and key in relabelled.NEEDED:
        print(f"prepare: {name}: not available: set data.sources.{key} to {relabelled.NEEDED[key]}")
        return 0
    answers = relabelled.answers(name, file, data.check_counts)
    made_from, known = inputs(data, protocol, name), facts(data, protocol, name)
    return relabelled.write(folder, made_from, answers, known)
