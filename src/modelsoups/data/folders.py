"""Prepares a data set whose images are in one folder per class, such as ROOT/train/daisy/1.jpg.

The configuration key data.root gives ROOT, with a subfolder for each split and test set. A test set
under distribution shift may lack classes of train; the logits of these classes are ignored.
"""

import functools
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from modelsoups.config.schema import DataConfig
from modelsoups.data import shards
from modelsoups.data.shards import Json
from modelsoups.disk import storage
from modelsoups.workers.processes import run_tasks

SUFFIXES = {".jpg": "jpg", ".jpeg": "jpg", ".png": "png"}
TEMPLATES = ["a photo of a {}."]  # prompts of the zero-shot head; a folder's name is its class name


def names(data: DataConfig) -> list[str]:
    """Return the data sets' names (train, test, ...); raise ValueError if a folder is missing."""
    wanted = [data.train, data.holdout, data.test, *data.shifts, *data.extra]
    if data.root is None:
        raise ValueError("data.root is null; set it to the folder with train/, holdout/, ...")
    for folder in (Path(data.root) / name for name in wanted):
        if not folder.is_dir():
            raise ValueError(f"{folder} is missing; data.root must contain the folders {', '.join(wanted)}")
    return wanted


def inputs(data: DataConfig, protocol: str, name: str) -> Json:
    """Return what identifies a data set: training classes, and a hash of file names and sizes."""
    paths = [path for path, _ in _labelled_files(data, name)]
    digest = storage.fingerprint([(f"{p.parent.name}/{p.name}", p.stat().st_size) for p in paths])
    return {"library": "folders", "set": name, "files": digest, "classes": _subfolders(data, data.train)}


def facts(data: DataConfig, protocol: str, name: str) -> Json:
    """Return a data set's metadata for its manifest.json: name, role, classes, projection, ..."""
    roles = {data.train: "train", data.holdout: "holdout", data.test: "test"}
    classes = _subfolders(data, data.train)
    indices = list(map(classes.index, _classes_of(data, name)))
    all_classes = len(indices) == len(classes)
    return {
        "name": name,
        "title": f"{data.name} {name}" if name in roles else name,
        "role": roles.get(name, "shift" if name in data.shifts else "extra"),
        "classes": classes,
        "templates": TEMPLATES,
        "projection": None if all_classes else {"kind": "subset", "indices": indices},
    }


def make(data: DataConfig, protocol: str, todo: Sequence[str], workers: int) -> dict[str, int]:
    """Write the shards of the data sets named in `todo`; return the number of images by name."""
    return dict(run_tasks(functools.partial(_make, data, protocol), todo, workers, "prepare"))


def _make(data: DataConfig, protocol: str, name: str) -> int:
    made_from, known = inputs(data, protocol, name), facts(data, protocol, name)
    return shards.write_set(Path(data.dir) / name, _samples(data, name), data.shard_images, made_from, known)


def _samples(data: DataConfig, name: str) -> Iterator[shards.Sample]:
    """Yield (key, bytes, file type, label) of each image; the key is a hash of these bytes."""
    copies: Counter[str] = Counter()
    for path, label in _labelled_files(data, name):
        content = path.read_bytes()
        key = hashlib.sha256(content).hexdigest()[:16]
        copies[key] += 1
        unique = key if copies[key] == 1 else f"{key}-{copies[key]}"
        yield unique, content, SUFFIXES[path.suffix.lower()], label


def _labelled_files(data: DataConfig, name: str) -> list[tuple[Path, int]]:
    """Return (path, label) of every image of a set; label i is the set's i-th class."""
    root = Path(str(data.root)) / name
    files = []
    for label, class_name in enumerate(_classes_of(data, name)):
        paths = sorted((root / class_name).iterdir())
        files += [(path, label) for path in paths if path.suffix.lower() in SUFFIXES]
    if not files:
        raise ValueError(f"{root}: the class folders contain no {' or '.join(SUFFIXES)} images")
    return files


def _classes_of(data: DataConfig, name: str) -> list[str]:
    """Return a set's sorted class names; raise ValueError if they differ from those of train."""
    root = Path(str(data.root)) / name
    own, classes = _subfolders(data, name), _subfolders(data, data.train)
    if unknown := sorted(set(own) - set(classes)):
        first = unknown[0]
        raise ValueError(f"{root / first}: {data.train} has no class {first}; rename or move this folder")
    if name in (data.train, data.holdout, data.test) and own != classes:
        missing = next(c for c in classes if c not in own)
        raise ValueError(f"{root}: no folder for class {missing}; add one with its images")
    return own


def _subfolders(data: DataConfig, name: str) -> list[str]:
    root = Path(str(data.root)) / name
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
