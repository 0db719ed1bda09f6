"""Prepares FMoW and iWildCam of WILDS in their official splits (data.library=fmow or iwildcam; Figure G.1)."""

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelsoups.config.data import DataConfig
from modelsoups.data import roles, shards, walk
from modelsoups.data.imagenet.listing import key_of
from modelsoups.data.shards import Json
from modelsoups.data.storing import Storing, stored
from modelsoups.data.wilds import fmow, iwildcam, tables
from modelsoups.data.wilds.spec import SPLITS, Entry, Spec
from modelsoups.workers.processes import run_tasks


class Wilds:
    """A library of data sets: one data set of WILDS, its splits being the sets."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def names(self, data: DataConfig) -> list[str]:
        """Return the data sets' names; ValueError for one that is no split, or is named twice."""
        wanted = roles.names_of(data)
        for name in wanted:
            if name not in SPLITS:
                raise ValueError(f"unknown data set {name}; the splits of {self.spec.title} are {', '.join(SPLITS)}")
        return wanted

    def inputs(self, data: DataConfig, protocol: str, name: str) -> Json:
        """Return what identifies a data set: a hash of the tables, and for train the size of its images."""
        folder = self._folder(data)
        digest = tables.digest([folder / table for table in self.spec.tables])
        made: Json = {"library": self.spec.key, "set": name, "tables": digest}
        return made | (Storing.of(data, training=True).identity() if name == data.train else {})

    def facts(self, data: DataConfig, protocol: str, name: str) -> Json:
        """Return a data set's metadata for its manifest.json: name, role, classes, prompts, ..."""
        return {
            "name": name,
            "title": f"{self.spec.title} {SPLITS[name]}",
            "role": roles.role_of(data, name),
            "classes": self.spec.classes(self._folder(data)),
            "templates": list(self.spec.templates),
            "projection": None,
        }

    def make(self, data: DataConfig, protocol: str, todo: Sequence[str], workers: int) -> dict[str, int]:
        """Check the tables and images of all splits, and write the sets in `todo`; return image counts.

        Raises ValueError, with file and line, for a wrong row, and for rows without images or other numbers of images
        than the official ones, unless data.check_counts is false.
        """
        found = self._checked(data)
        task = functools.partial(_make, self.spec, data, protocol)
        tasks = [_Split(name, tuple(found[name])) for name in todo]
        return {split.name: count for split, count in run_tasks(task, tasks, workers, "prepare")}

    def _folder(self, data: DataConfig) -> Path:
        """Return the folder of the official archive; ValueError if there is none below data.root."""
        first = self.spec.tables[0]
        if data.root is None:
            raise ValueError(f"data.root is null; set it to the folder with {self.spec.folders[0]}/")
        base = Path(data.root).expanduser()
        for place in (base, *(base / name for name in self.spec.folders)):
            if (place / first).exists():
                return place
        raise ValueError(f"{base} has no {first} and no {self.spec.folders[0]}/{first}; correct data.root")

    def _checked(self, data: DataConfig) -> dict[str, list[Entry]]:
        """Return the images of each split; print how many were left out, and why."""
        folder = self._folder(data)
        present = _files(folder / self.spec.images)
        found: dict[str, list[Entry]] = {name: [] for name in SPLITS}
        named: dict[str, int] = {}  # file name -> its line
        absent: list[Entry] = []
        for entry in self.spec.entries(folder):
            if named.setdefault(entry.name, entry.line) != entry.line:
                where = f"{folder / self.spec.tables[0]} line {entry.line}"
                raise ValueError(f"{where}: {entry.name} is also the image of line {named[entry.name]}; remove one")
            if entry.split is not None:
                (found[entry.split] if entry.name in present else absent).append(entry)
        self._report(data, absent, present - named.keys())
        self._check_counts(data, found)
        return found

    def _report(self, data: DataConfig, absent: list[Entry], unnamed: set[str]) -> None:
        """Print, or raise as ValueError, that rows have no images; print that images have no rows."""
        title, folder = self.spec.title, self._folder(data) / self.spec.images
        if absent:
            first = f"first {folder / absent[0].name} ({self.spec.tables[0]} line {absent[0].line})"
            said = f"{len(absent):,} images of the table are missing, {first}"
            if data.check_counts:
                way_out = "extract the archive again, or set data.check_counts=false to continue without them"
                raise ValueError(f"{title}: {said}; {way_out}")
            print(f"prepare: {title}: {said}; left out")
        if unnamed:
            print(f"prepare: {title}: {len(unnamed):,} files in {folder} have no row, such as {min(unnamed)}; ignored")

    def _check_counts(self, data: DataConfig, found: dict[str, list[Entry]]) -> None:
        folder, way_out = self._folder(data), "restore the official files, or set data.check_counts=false"
        for name in self.names(data):
            count, official = len(found[name]), self.spec.counts[name]
            if not count:
                raise ValueError(f"{folder} has no image of {name}; {way_out.partition(',')[0]}")
            if data.check_counts and count != official:
                raise ValueError(f"{folder}: {name} has {count:,} images, not the official {official:,}; {way_out}")
        number, expected = len(self.spec.classes(folder)), self.spec.number_of_classes
        if data.check_counts and expected not in (None, number):
            raise ValueError(f"{folder} has {number} classes, not the official {expected}; {way_out}")


def _files(folder: Path) -> set[str]:
    """Return the names of the files in a folder; ValueError if it is missing."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is missing; it holds the images: extract the official archive again")
    with os.scandir(folder) as inside:
        return {entry.name for entry in inside if not walk.is_ignored(entry.name)}


@dataclass(frozen=True)
class _Split:
    """The images of a split, which one worker process writes."""

    name: str
    entries: tuple[Entry, ...]

    def __str__(self) -> str:  # in messages
        return self.name


def _make(spec: Spec, data: DataConfig, protocol: str, split: _Split) -> int:
    name, entries = split.name, split.entries
    library = Wilds(spec)
    made_from, known = library.inputs(data, protocol, name), library.facts(data, protocol, name)
    images, folder = library._folder(data) / spec.images, Path(data.dir) / name
    counts = np.bincount([entry.label for entry in entries], minlength=len(known["classes"]))
    known |= {"source": str(images.parent), "counts": counts.tolist()}
    if spec.groups:
        known |= shards.write_groups(folder, np.array([entry.group for entry in entries]), spec.groups)
    samples = _samples(images, entries, spec.key, Storing.of(data, name == data.train))
    return shards.write_set(folder, samples, data.shard_images, made_from, known)


def _samples(images: Path, entries: Sequence[Entry], prefix: str, storing: Storing) -> Iterator[shards.Sample]:
    for entry in entries:
        path = images / entry.name
        content, kind = stored(walk.content(path), str(path), storing)
        yield key_of(prefix, path.stem), content, kind, entry.label


FMOW, IWILDCAM = Wilds(fmow.FMOW), Wilds(iwildcam.IWILDCAM)
