"""Any data set of yours that lies in class folders: a library of `prepare`.

data.root holds a folder for each set of the experiment (train, holdout, test, the shifts), and each of these a folder
for each class with its images: ROOT/train/daisy/1.jpg. The classes are those of train; a shift may have fewer of them,
and is then scored among these, as ImageNet-R is.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from modelsoups.config.schema import Config
from modelsoups.data import shards
from modelsoups.disk import storage
from modelsoups.workers.processes import run_tasks, worker_count

SUFFIXES = {".jpg": "jpg", ".jpeg": "jpg", ".png": "png"}
TEMPLATES = ["a photo of a {}."]  # of the zero-shot head; a class's name is its folder's


def names(cfg: Config) -> list[str]:
    """The sets of the experiment, in order; ValueError where one has no folder."""
    wanted = [cfg.data.train, cfg.data.holdout, cfg.data.test, *cfg.data.shifts, *cfg.data.extra]
    if cfg.data.root is None:
        raise ValueError("data.root is null: expected the folder that holds train/, holdout/, test/ ...")
    for name in wanted:
        if not (folder := Path(cfg.data.root) / name).is_dir():
            raise ValueError(f"{folder} is missing: data.root holds a folder for each of {', '.join(wanted)}")
    return wanted


def inputs(cfg: Config, name: str) -> dict[str, Any]:
    """What a set is made from: the names and sizes of its files."""
    files = [(f"{path.parent.name}/{path.name}", path.stat().st_size) for path, _ in _files(cfg, name)]
    return {"library": "folders", "set": name, "files": storage.fingerprint(files), "classes": _classes(cfg)}


def facts(cfg: Config, name: str) -> dict[str, Any]:
    """What readers of a set need beside its images; see `shards.finish_set`."""
    roles = {cfg.data.train: "train", cfg.data.holdout: "holdout", cfg.data.test: "test"}
    classes = _classes(cfg)
    indices = [classes.index(c) for c in _own(cfg, name)]
    return {
        "name": name,
        "title": f"{cfg.data.name} {name}" if name in roles else name,
        "role": roles.get(name, "shift" if name in cfg.data.shifts else "extra"),
        "classes": classes,
        "templates": TEMPLATES,
        "projection": None if len(indices) == len(classes) else {"kind": "subset", "indices": indices},
    }


def make(cfg: Config, todo: Sequence[str]) -> dict[str, int]:
    """Write the shards of the sets; the number of images of each."""
    return dict(run_tasks(functools.partial(_make, cfg), todo, worker_count(cfg.finetune.parallel), "prepare"))


def _make(cfg: Config, name: str) -> int:
    folder = Path(cfg.data.dir) / name
    samples = _samples(cfg, name)
    entries: list[dict[str, Any]] = []
    while block := list(islice(samples, cfg.data.shard_images)):
        entries.append(shards.write_shard(folder / f"{name}-{len(entries):06d}.tar", block))
    shards.finish_set(folder, inputs(cfg, name), entries, facts(cfg, name))
    return sum(e["images"] for e in entries)


def _samples(cfg: Config, name: str) -> Iterator[shards.Sample]:
    """The files as they are. The key is the content's hash, so that an image in train and hold-out is noticed."""
    seen: dict[str, int] = {}
    for path, label in _files(cfg, name):
        content = path.read_bytes()
        key = hashlib.sha256(content).hexdigest()[:16]
        seen[key] = seen.get(key, 0) + 1
        yield (key if seen[key] == 1 else f"{key}-{seen[key]}"), content, SUFFIXES[path.suffix.lower()], label


def _files(cfg: Config, name: str) -> list[tuple[Path, int]]:
    """Every image of a set with its label, which counts the set's own classes."""
    root = Path(str(cfg.data.root)) / name
    own = _own(cfg, name)
    files = [(path, label) for label, c in enumerate(own) for path in sorted((root / c).iterdir())
             if path.suffix.lower() in SUFFIXES]  # fmt: skip
    if not files:
        raise ValueError(f"{root}: no images ({', '.join(SUFFIXES)}) in its class folders")
    return files


def _own(cfg: Config, name: str) -> list[str]:
    """The classes that a set has, in their order; ValueError naming one that train does not have."""
    root = Path(str(cfg.data.root)) / name
    own, classes = _folders(root), _classes(cfg)
    if unknown := sorted(set(own) - set(classes)):
        raise ValueError(f"{root / unknown[0]}: {cfg.data.train} has no class {unknown[0]}; rename or move the folder")
    if name in (cfg.data.train, cfg.data.holdout, cfg.data.test) and own != classes:
        raise ValueError(f"{root}: no folder for class {next(c for c in classes if c not in own)}")
    return own


def _classes(cfg: Config) -> list[str]:
    return _folders(Path(str(cfg.data.root)) / cfg.data.train)


def _folders(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
