"""What the library of appendix E's data sets needs to know of one of them, and one of its images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Picture(NamedTuple):
    """An image: its name, unique in the data set, its label, and its file or pixels (H, W, C)."""

    name: str
    label: int
    source: Path | np.ndarray


Listed = tuple[list[str], list[Picture]]  # class names by label, and images


@dataclass(frozen=True)
class Spec:
    """One data set. Its files are those of the official `archive`, unpacked in data.root.

    images: the official number of images of each official split, by its name here. classes: the
    number of classes; names: the fingerprint of their sorted names. templates(): the prompts.
    tables(root, split): the files that say which images a split has. read(root, split): the class
    names and images of a split.
    """

    key: str
    title: str
    archive: str
    images: Mapping[str, int]
    classes: int
    names: str
    templates: Callable[[], list[str]]
    tables: Callable[[Path, str], Sequence[Path]]
    read: Callable[[Path, str], Listed]
