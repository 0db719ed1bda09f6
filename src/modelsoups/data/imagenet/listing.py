"""Lists the images of a data set, whatever their file format.

An image is the bytes [offset, offset + size) of an image file, of a tar, or of a file that
`parquet.copy_out` writes.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from modelsoups.data.walk import MOST_BYTES

IMAGE_SUFFIXES = {".jpeg", ".jpg", ".png"}
ORIGINAL = re.compile(r"(n\d{8}_\d+|ILSVRC2012_val_\d{8})(_n\d{8})?")
COLUMNS = ("key_N", "label_N", "file_N", "name_N", "offset_N", "size_N")


class Found(NamedTuple):
    """One image's key, label and location: file/name, or a byte range of `file`."""

    key: str
    label: int
    file: str
    name: str
    offset: int
    size: int


@dataclass
class Listing:
    """The images of a data set, as one array per attribute: 1.3 million images take 100 MB."""

    files: list[str]
    key_N: np.ndarray  # bytes
    label_N: np.ndarray
    file_N: np.ndarray  # indices into `files`
    name_N: np.ndarray  # bytes, as in Found
    offset_N: np.ndarray
    size_N: np.ndarray

    def __len__(self) -> int:
        return len(self.key_N)

    @staticmethod
    def of(images: Iterable[Found]) -> "Listing":
        rows = list(images)
        files = {file: i for i, file in enumerate(dict.fromkeys(row.file for row in rows))}
        return Listing(
            list(files),
            np.array([row.key for row in rows], dtype=np.bytes_),
            np.array([row.label for row in rows], dtype=np.int32),
            np.array([files[row.file] for row in rows], dtype=np.int32),
            np.array([os.fsencode(row.name) for row in rows], dtype=np.bytes_),
            np.array([row.offset for row in rows], dtype=np.int64),
            np.array([row.size for row in rows], dtype=np.int64),
        )

    @staticmethod
    def concatenate(parts: "Sequence[Listing]") -> "Listing":
        starts = np.cumsum([0, *map(len, (part.files for part in parts))], dtype=np.int32)
        moved = [replace(p, file_N=p.file_N + start) for p, start in zip(parts, starts, strict=False)]
        columns = {name: np.concatenate([getattr(p, name) for p in moved]) for name in COLUMNS}
        return Listing([file for part in parts for file in part.files], **columns)

    def take(self, rows: np.ndarray | slice) -> "Listing":
        return Listing(self.files, **{name: getattr(self, name)[rows] for name in COLUMNS})

    def key(self, row: int) -> str:
        return str(self.key_N[row], "ascii")

    def where(self, row: int) -> str:
        """Return an image's path, or its file and byte offset, for error messages."""
        file, name = self.files[self.file_N[row]], os.fsdecode(self.name_N[row])
        return f"{file}/{name}" if name else f"{file} (byte {self.offset_N[row]:,})"

    def read(self, row: int) -> bytes:
        """Return an image's encoded bytes; ValueError if it is too large, or its file became shorter."""
        if self.size_N[row] > MOST_BYTES:
            size = f"{self.size_N[row] / 2**20:,.0f} MiB"
            raise ValueError(f"{self.where(row)} has {size}, but an image may have at most {MOST_BYTES >> 20}")
        file, name = self.files[self.file_N[row]], os.fsdecode(self.name_N[row])
        with open(Path(file, name) if name else file, "rb", buffering=0) as f:
            data = os.pread(f.fileno(), int(self.size_N[row]), int(self.offset_N[row]))
        if len(data) != self.size_N[row]:
            sizes = f"{len(data)} of {self.size_N[row]} bytes"
            way_out = "rerun the command"
            raise ValueError(f"{self.where(row)} changed while it was read: {sizes}; {way_out}")
        return data

    def in_order(self) -> "Listing":
        """Return the images sorted by label, then key; raise ValueError if two have one key."""
        order = np.argsort(self.key_N, kind="stable")
        keys_N = self.key_N[order]
        same = np.flatnonzero(keys_N[1:] == keys_N[:-1])
        if len(same):
            first, second = order[same[0] : same[0] + 2].tolist()
            places = f"{self.where(first)} and {self.where(second)}"
            raise ValueError(f"{len(same):,} images occur twice, first {self.key(first)} in {places}; remove one copy")
        return self.take(np.lexsort((self.key_N, self.label_N)))

    def shuffled(self) -> "Listing":
        """Return the images in a random order that mixes classes and depends on the keys only."""
        digests = [hashlib.sha256(b"order " + key).digest() for key in self.key_N.tolist()]
        return self.take(np.argsort(np.array(digests, dtype="S32"), kind="stable"))


def original_name(name: str) -> str | None:
    """Return the name nXXXXXXXX_N or ILSVRC2012_val_XXXXXXXX in a file name, or None."""
    match = ORIGINAL.fullmatch(name.rpartition("/")[2].partition(".")[0])
    return match[1] if match else None


def key_of(folder: str, stem: str) -> str:
    """Return <folder>_<stem> as a WebDataset key; if characters are replaced, a hash is added."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", stem)
    mark = "" if plain == stem else f"-{hashlib.sha256(os.fsencode(stem)).hexdigest()[:6]}"
    return f"{folder}_{plain}{mark}"


def is_image(name: str) -> bool:
    """Return whether a file name ends in .jpeg, .jpg or .png and does not start with a dot."""
    base = name.rpartition("/")[2]
    return not base.startswith(".") and os.path.splitext(base)[1].lower() in IMAGE_SUFFIXES
