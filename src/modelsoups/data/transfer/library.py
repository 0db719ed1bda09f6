"""Prepares DTD, Food-101, SUN397, Stanford Cars and CIFAR-100 as data sets (data.library=dtd, ...; appendix E).

The sets are the official splits. A set "holdout" takes data.holdout_per_class images of each class
out of train, those whose names have the smallest sha256.
"""

import functools
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from modelsoups.config.data import DataConfig
from modelsoups.data import roles, shards, walk
from modelsoups.data.shards import Json
from modelsoups.data.storing import Storing, stored
from modelsoups.data.transfer.readers import SPECS
from modelsoups.data.transfer.spec import Listed, Picture, Spec
from modelsoups.disk import storage
from modelsoups.workers.processes import run_tasks

HELD = "holdout"  # the set that is taken out of train


class Transfer:
    """A library of data sets: the official splits of one of appendix E's data sets."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def names(self, data: DataConfig) -> list[str]:
        """Return the sets' names; ValueError for one that is no split, or is named twice."""
        wanted, known = roles.names_of(data), [*self.spec.images, HELD]
        for name in wanted:
            if name not in known:
                raise ValueError(f"unknown data set {name}; the splits of {self.spec.title} are {', '.join(known)}")
        return wanted

    def inputs(self, data: DataConfig, protocol: str, name: str) -> Json:
        """Return what identifies a set: hashes of the tables, and how it is split and resized."""
        tables = [storage.file_sha256(path)[:16] for path in self._tables(data, name)]
        made: Json = {"library": self.spec.key, "set": name, "tables": tables}
        if name in ("train", HELD):
            made["holdout_per_class"] = data.holdout_per_class if HELD in self.names(data) else 0
        return made | (Storing.of(data, training=True).identity() if name == data.train else {})

    def facts(self, data: DataConfig, protocol: str, name: str) -> Json:
        """Return a set's metadata for its manifest.json: name, role, classes, prompts, ..."""
        return self._facts(data, name, self._read(data, name)[0])

    def make(self, data: DataConfig, protocol: str, todo: Sequence[str], workers: int) -> dict[str, int]:
        """Write the sets in `todo`; return image counts by name. ValueError for wrong or missing files."""
        return dict(run_tasks(functools.partial(_make, self.spec.key, data), todo, min(workers, 3), "prepare"))

    def _facts(self, data: DataConfig, name: str, classes: list[str]) -> Json:
        title = self.spec.title if name == data.test else f"{self.spec.title} {name}"
        about = {"name": name, "title": title, "role": roles.role_of(data, name)}
        return {**about, "classes": classes, "templates": self.spec.templates(), "projection": None}

    def _tables(self, data: DataConfig, name: str) -> list[Path]:
        """Return the files that list a set's images; ValueError if one is missing."""
        if data.root is None:
            raise ValueError(f"data.root is null; set it to the folder with {self.spec.archive}")
        found = list(self.spec.tables(Path(data.root).expanduser(), _split(name)))
        if absent := next((path for path in found if not path.is_file()), None):
            raise ValueError(f"{absent} is missing; unpack {self.spec.archive} in data.root={data.root}")
        return found

    def _read(self, data: DataConfig, name: str) -> Listed:
        """Return the classes and images of a set, checked. ValueError, in a line, for anything unexpected."""
        spec, split, root = self.spec, _split(name), Path(str(data.root)).expanduser()
        tables = self._tables(data, name)
        try:
            classes, pictures = spec.read(root, split)
        except Exception as error:  # torchvision, SciPy and what they call raise many kinds
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            way_out = f"restore the official files: {spec.archive}"
            raise ValueError(f"{tables[-1]}: {spec.title} cannot be read ({reason}); {way_out}") from error
        self._check(data, split, classes, pictures)
        if name in ("train", HELD) and HELD in self.names(data):
            held = self._held(classes, pictures, data.holdout_per_class)
            pictures = [picture for picture in pictures if (picture.name in held) == (name == HELD)]
        return classes, pictures

    def _check(self, data: DataConfig, split: str, classes: list[str], pictures: list[Picture]) -> None:
        """Raise ValueError for labels without a class, doubled names, other numbers or other classes than official."""
        where, way_out = f"{self.spec.title} in {data.root}", "restore the official files"
        for picture in pictures:
            if not 0 <= picture.label < len(classes):
                said = f"{picture.name} has label {picture.label}, but there are {len(classes)} classes"
                raise ValueError(f"{where}: {said}; {way_out}")
        if len({picture.name for picture in pictures}) < len(pictures):
            twice = Counter(picture.name for picture in pictures).most_common(1)[0][0]
            raise ValueError(f"{where}: {twice} is listed twice in {split}; {way_out}")
        counts = ((len(classes), self.spec.classes, "classes"), (len(pictures), self.spec.images[split], "images"))
        for number, official, what in counts if data.check_counts else ():
            if number != official:
                said = f"{split} has {number:,} {what}, not the official {official:,}"
                raise ValueError(f"{where}: {said}; {way_out}, or set data.check_counts=false to accept these")
        if data.check_counts and storage.fingerprint(sorted(classes)) != self.spec.names:
            said = f"the names of its {len(classes)} classes are not the official ones ({', '.join(classes[:3])}, ...)"
            raise ValueError(f"{where}: {said}; {way_out}, or set data.check_counts=false to accept these")

    def _held(self, classes: list[str], pictures: list[Picture], per_class: int) -> set[str]:
        """Return the names of the images that are held out."""
        by_class: dict[int, list[str]] = defaultdict(list)
        for picture in pictures:
            by_class[picture.label].append(picture.name)
        held: set[str] = set()
        for label, names in by_class.items():
            if len(names) <= per_class:
                said = f"class {classes[label]} of {self.spec.title} has {len(names)} training images"
                raise ValueError(f"{said}, too few to hold out {per_class}; lower data.holdout_per_class")
            held |= set(sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:per_class])
        return held


def _split(name: str) -> str:
    return "train" if name == HELD else name


def _make(key: str, data: DataConfig, name: str) -> int:
    library = ALL[key]
    classes, pictures = library._read(data, name)
    known = library._facts(data, name, classes) | {"source": str(data.root)}
    samples = _samples(pictures, Storing.of(data, name == data.train))
    return shards.write_set(Path(data.dir) / name, samples, data.shard_images, library.inputs(data, "", name), known)


def _samples(pictures: Sequence[Picture], storing: Storing) -> Iterator[shards.Sample]:
    """Yield (hash of the name, bytes, file type, label) of each image, in the order of these hashes."""
    keyed = {hashlib.sha256(picture.name.encode()).hexdigest()[:24]: picture for picture in pictures}
    for key, picture in sorted(keyed.items(), key=lambda pair: pair[0]):
        if isinstance(picture.source, np.ndarray):
            yield key, shards.encode_png(np.ascontiguousarray(picture.source)), "png", picture.label
        else:
            content, kind = stored(walk.content(picture.source), str(picture.source), storing)
            yield key, content, kind, picture.label


ALL = {spec.key: Transfer(spec) for spec in SPECS}
DTD, FOOD101, SUN397, CARS, CIFAR100 = ALL.values()
