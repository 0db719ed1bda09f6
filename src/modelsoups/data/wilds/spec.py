"""What the library of WILDS needs to know of a data set, and a row of its table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

SPLITS = {  # official name -> its title; id: like the training set, ood: under distribution shift
    "train": "train",
    "id_val": "ID validation",
    "val": "OOD validation",
    "id_test": "ID test",
    "test": "OOD test",
}


class Entry(NamedTuple):
    """An image: its split (None: not used), file name, label, group (-1: none), and line in the first table."""

    split: str | None
    name: str
    label: int
    group: int
    line: int


@dataclass(frozen=True)
class Spec:
    """A data set of WILDS.

    folders: names of its folder below data.root. tables: names of the files that it is made from. images: the
    folder of its images. counts: the official number of images of each split. groups: names of the groups.
    classes(folder), entries(folder): its class names, and an Entry for each row of the first table.
    """

    key: str
    title: str
    folders: Sequence[str]
    tables: Sequence[str]
    images: str
    counts: Mapping[str, int]
    templates: Sequence[str]
    groups: Sequence[str]
    classes: Callable[[Path], list[str]]
    entries: Callable[[Path], Iterator[Entry]]
    number_of_classes: int | None = None  # to be checked, where a table gives the classes
