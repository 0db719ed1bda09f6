"""Where each image of a set lies: the one thing that every input form is turned into.

An image is [offset, offset + size) of a file, so a file of its own, a member of a tar (or of a tar inside a tar), or a
row of a parquet file that was copied out. From here on the input form makes no difference.

Legend: N images.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

IMAGE_SUFFIXES = {".jpeg", ".jpg", ".png"}
ORIGINAL = re.compile(r"(n\d{8}_\d+|ILSVRC2012_val_\d{8})(_n\d{8})?")


class Found(NamedTuple):
    """One image as a lister found it. name: path under `file` when that is a folder, else empty."""

    key: str
    label: int
    file: str
    name: str
    offset: int
    size: int


@dataclass
class Listing:
    """Images as columns, so that 1.3 million of them take 100 MB."""

    files: list[str]
    key_N: np.ndarray  # bytes
    label_N: np.ndarray
    file_N: np.ndarray  # position in `files`
    name_N: np.ndarray  # bytes; see Found
    offset_N: np.ndarray
    size_N: np.ndarray

    def __len__(self) -> int:
        return len(self.key_N)

    @staticmethod
    def of(images: Iterable[Found]) -> Listing:
        rows = list(images)
        files = {file: i for i, file in enumerate(dict.fromkeys(r.file for r in rows))}
        return Listing(
            list(files),
            np.array([r.key for r in rows], dtype=np.bytes_),
            np.array([r.label for r in rows], dtype=np.int32),
            np.array([files[r.file] for r in rows], dtype=np.int32),
            np.array([os.fsencode(r.name) for r in rows], dtype=np.bytes_),
            np.array([r.offset for r in rows], dtype=np.int64),
            np.array([r.size for r in rows], dtype=np.int64),
        )

    @staticmethod
    def concatenate(parts: Sequence[Listing]) -> Listing:
        starts = np.cumsum([0, *(len(p.files) for p in parts)])
        names = ("key_N", "label_N", "name_N", "offset_N", "size_N")
        columns = {name: np.concatenate([getattr(p, name) for p in parts]) for name in names}
        file_N = np.concatenate([p.file_N + start for p, start in zip(parts, starts[:-1], strict=True)])
        return Listing([f for p in parts for f in p.files], file_N=file_N.astype(np.int32), **columns)

    def take(self, rows: np.ndarray | slice) -> Listing:
        names = ("key_N", "label_N", "file_N", "name_N", "offset_N", "size_N")
        return Listing(self.files, **{name: getattr(self, name)[rows] for name in names})

    def key(self, row: int) -> str:
        return str(self.key_N[row], "ascii")

    def where(self, row: int) -> str:
        """The place of an image, for messages."""
        file, name = self.files[self.file_N[row]], os.fsdecode(self.name_N[row])
        return f"{file}/{name}" if name else f"{file} (byte {self.offset_N[row]:,})"

    def read(self, row: int) -> bytes:
        """The image's bytes; ValueError when the file has become shorter, OSError when it cannot be read."""
        file, name = self.files[self.file_N[row]], os.fsdecode(self.name_N[row])
        with open(Path(file, name) if name else file, "rb", buffering=0) as f:
            data = os.pread(f.fileno(), int(self.size_N[row]), int(self.offset_N[row]))
        if len(data) != self.size_N[row]:
            raise ValueError(f"{self.where(row)} changed while it was read: {len(data)} of {self.size_N[row]} bytes")
        return data

    def in_order(self) -> Listing:
        """Sorted by label, then key; ValueError when two images have one key."""
        listing = self.take(np.lexsort((self.key_N, self.label_N)))
        listing.refuse_doubles()
        return listing

    def shuffled(self) -> Listing:
        """In an order that depends on the keys alone, for training shards that mix all classes."""
        digests = [hashlib.sha256(b"order " + key).digest() for key in self.key_N.tolist()]
        return self.take(np.argsort(np.array(digests, dtype="S32"), kind="stable"))

    def refuse_doubles(self) -> None:
        order = np.argsort(self.key_N, kind="stable")
        keys_N = self.key_N[order]
        same = np.flatnonzero(keys_N[1:] == keys_N[:-1])
        if len(same):
            first, second = int(order[same[0]]), int(order[same[0] + 1])
            raise ValueError(
                f"images that are there twice: {len(same):,}, first {self.key(first)}: {self.where(first)} and "
                f"{self.where(second)}; remove one copy"
            )


def original_name(name: str) -> str | None:
    """nXXXXXXXX_N or ILSVRC2012_val_XXXXXXXX of a file of any input form, None when it is no such name.

    Folders, the extension and Hugging Face's suffix (`<original>_<wnid>.JPEG`) are dropped.
    """
    match = ORIGINAL.fullmatch(name.rpartition("/")[2].partition(".")[0])
    return match[1] if match else None


def key_of(folder: str, stem: str) -> str:
    """A key for an image of a test set, unique and without dots or spaces, as WebDataset needs.

    Names that had other characters (ImageNet-A's) get six digits of their hash, so that they stay different.
    """
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", stem)
    mark = "" if plain == stem else f"-{hashlib.sha256(os.fsencode(stem)).hexdigest()[:6]}"
    return f"{folder}_{plain}{mark}"


def is_image(name: str) -> bool:
    """Whether a file counts as an image by its name; hidden files (macOS's `._x.JPEG`) do not."""
    base = name.rpartition("/")[2]
    return not base.startswith(".") and os.path.splitext(base)[1].lower() in IMAGE_SUFFIXES
