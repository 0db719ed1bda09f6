"""Prepares a data set whose images are in one folder per class, such as ROOT/train/daisy/1.jpg.

The configuration key data.root gives ROOT, with a subfolder for each split and test set. A test set
under distribution shift may lack classes of train; the logits of these classes are ignored.
"""

import functools
import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelsoups.config.data import DataConfig
from modelsoups.data import overlaps, pictures, roles, shards, walk
from modelsoups.data.shards import Json
from modelsoups.disk import storage
from modelsoups.workers.processes import run_tasks, workers_kept

TEMPLATES = ["a photo of a {}."]  # prompts of the zero-shot head; a class is named by its folder


def names(data: DataConfig) -> list[str]:
    """Return the data sets' names; ValueError if a folder is missing or a set is named twice."""
    wanted = roles.names_of(data)
    if data.root is None:
        raise ValueError("data.root is null; set it to the folder with train/, holdout/, ...")
    for folder in (Path(data.root) / name for name in wanted):
        if not folder.is_dir():
            raise ValueError(f"{folder} is missing; data.root must contain the folders {', '.join(wanted)}")
    return wanted


def inputs(data: DataConfig, protocol: str, name: str) -> Json:
    """Return what identifies a data set: training classes, and a hash of file names and sizes."""
    files = _labelled_files(data, name)
    digest = storage.fingerprint([(f"{i.class_name}/{i.name}", i.path.stat().st_size) for i in files])
    return {"library": "folders", "set": name, "files": digest, "classes": _classes(data, data.train)}


def facts(data: DataConfig, protocol: str, name: str) -> Json:
    """Return a data set's metadata for its manifest.json: name, role, classes, projection, ..."""
    classes = _classes(data, data.train)
    indices = list(map(classes.index, _classes_of(data, name)))
    all_classes = len(indices) == len(classes)
    return {
        "name": name,
        "title": f"{data.name} {name}" if name in roles.main_sets(data) else name,
        "role": roles.role_of(data, name),
        "classes": classes,
        "templates": TEMPLATES,
        "projection": None if all_classes else {"kind": "subset", "indices": indices},
    }


def make(data: DataConfig, protocol: str, todo: Sequence[str], workers: int) -> dict[str, int]:
    """Check the images of the sets in `todo` and write their shards; return image counts by name.

    Raises ValueError for a file that cannot be decoded, and for an image that is in two classes of
    a set or in two of the training set, the hold-out and the test set.
    """
    for line in _left_out(data, todo):
        print(f"prepare: {line}")
    sets = [
        Labelled(name, tuple(_labelled_files(data, name)), inputs(data, protocol, name), facts(data, protocol, name))
        for name in todo
    ]
    return write_sets(data, names(data), sets, workers)


@dataclass(frozen=True)
class LabelledImage:
    """An image file. name: its path inside the class folder. label, group: the indices of its class and group."""

    class_name: str
    label: int
    name: str
    path: Path
    group: int = 0


@dataclass(frozen=True)
class _Checks:
    """The images of one class of a data set, which one worker process checks together."""

    set_name: str
    images: tuple[LabelledImage, ...]
    every_pixel: bool

    def __str__(self) -> str:
        return f"{self.set_name}/{self.images[0].class_name}"


@dataclass(frozen=True)
class Labelled:
    """A data set to write: its name and images, what identifies it, its metadata, the names of groups (or none)."""

    name: str
    images: tuple[LabelledImage, ...]
    inputs: Json
    facts: Json
    groups: Sequence[str] = ()

    def __str__(self) -> str:
        return self.name


def write_sets(data: DataConfig, every: Sequence[str], sets: Sequence[Labelled], workers: int) -> dict[str, int]:
    """Check the images of `sets` and write these; return image counts by name.

    every: names of all sets; those that are not in `sets` are complete. Raises ValueError as `make`.
    """
    with workers_kept():
        written = {each.name for each in sets}
        found = {name: [] if name in written else overlaps.in_set(Path(data.dir) / name) for name in every}
        tasks = [task for each in sets for task in _checks(each.name, each.images, data.verify)]
        checked = dict(run_tasks(_check, tasks, workers, "prepare: checking"))
        for task in tasks:  # in this order, not in that of completion: messages name the first image of two
            found[task.set_name] += checked[task]
        overlaps.refuse(roles.main_sets(data), found)
        for line in overlaps.notes([data.train, data.holdout], found):
            print(f"prepare: {line}")
        made = run_tasks(functools.partial(_write, data), sets, workers, "prepare")
        return {task.name: count for task, count in made}


def _checks(name: str, images: Sequence[LabelledImage], every_pixel: bool) -> list[_Checks]:
    by_class: dict[str, list[LabelledImage]] = {}
    for image in images:
        by_class.setdefault(image.class_name, []).append(image)
    return [_Checks(name, tuple(group), every_pixel) for group in by_class.values()]


def _check(task: _Checks) -> list[overlaps.Seen]:
    """Return hash, class and path of each image; ValueError for a file that cannot be decoded."""
    found = []
    for image in task.images:
        content = walk.content(image.path)
        try:
            with warnings.catch_warnings(action="ignore"):
                pictures.check(content, task.every_pixel)
        except pictures.DAMAGE as error:
            said = f"{image.path} cannot be decoded ({pictures.reason(error)})"
            way_out = "put a whole image in its place, or move it out of the class folders"
            raise ValueError(f"{said}; {way_out}") from error
        found.append(overlaps.Seen(_key(content), image.class_name, str(image.path)))
    return found


def _left_out(data: DataConfig, todo: Sequence[str]) -> Iterator[str]:
    """Yield a message for each data set with files that are not images: how many of each suffix."""
    for name in todo:
        others = walk.left_out(Path(str(data.root)) / name)
        if others:
            rule = f"only files {', '.join(walk.SUFFIXES)} in class folders are read"
            yield f"{name}: ignored {walk.kinds(others)}, such as {others[0]}; {rule}"


def _write(data: DataConfig, made: Labelled) -> int:
    folder, known = Path(data.dir) / made.name, made.facts
    if made.groups:
        known = known | shards.write_groups(folder, np.array([image.group for image in made.images]), made.groups)
    return shards.write_set(folder, _samples(made.images, folder), data.shard_images, made.inputs, known)


def _samples(images: Iterable[LabelledImage], folder: Path) -> Iterator[shards.Sample]:
    """Yield (hash of the bytes, bytes, file type, label) of each image; write originals.json to `folder`."""
    copies: Counter[str] = Counter()
    originals: dict[str, str] = {}
    for image in images:
        content = walk.content(image.path)
        key = _key(content)
        copies[key] += 1
        unique = key if copies[key] == 1 else f"{key}-{copies[key]}"
        originals[unique] = str(image.path)
        yield unique, content, walk.SUFFIXES[image.path.suffix.lower()], image.label
    storage.write_json(folder / shards.ORIGINALS, originals)


def _key(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _labelled_files(data: DataConfig, name: str) -> list[LabelledImage]:
    """Return every image file of a data set; label i is the set's i-th class."""
    folders = walk.class_folders(Path(str(data.root)) / name)
    files = []
    for label, class_name in enumerate(_classes_of(data, name)):
        files += [LabelledImage(class_name, label, below, path) for below, path in walk.images(folders[class_name])]
    if not files:
        raise ValueError(
            f"{Path(str(data.root)) / name} contains no class folders; put the images of each class into one"
        )
    return files


def _classes_of(data: DataConfig, name: str) -> list[str]:
    """Return a set's sorted class names; raise ValueError if they differ from those of train."""
    root = Path(str(data.root)) / name
    own, classes = _classes(data, name), _classes(data, data.train)
    if unknown := sorted(set(own) - set(classes)):
        first = unknown[0]
        way_out = "rename or move this folder"
        raise ValueError(f"{root / first}: {data.train} has no class {first}; {way_out}")
    if name in roles.main_sets(data) and own != classes:
        missing = next(c for c in classes if c not in own)
        raise ValueError(f"{root}: no folder for class {missing}; add one with its images")
    return own


def _classes(data: DataConfig, name: str) -> list[str]:
    return list(walk.class_folders(Path(str(data.root)) / name))
