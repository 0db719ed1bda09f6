"""Copies the images of Hugging Face's parquet files to plain files, before shards are written.

Shards have another order, and reading one row of a parquet file means reading a whole row group.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelsoups.data import footers, shards
from modelsoups.data.imagenet.listing import Found, Listing
from modelsoups.disk import storage
from modelsoups.workers.processes import advance

ROWS = 32  # in memory at a time
CLASSES = 1000
Checked = Callable[[Path, Any, Any], tuple[str, bytes, Any]]


def list_hard(paths: Sequence[Path], folder: Path) -> Listing:
    """Copy the images of ImageNet-Hard to `folder` and list them; label: the first of an image's classes.

    Rows have image and label, a list of classes, as in https://huggingface.co/datasets/taesiri/imagenet-hard.
    Keys number the images, whose names were not kept, and end with the classes.
    """
    pieces = []
    for number, path in enumerate(paths):
        check = functools.partial(_several_classes, f"hard-{number:03d}", itertools.count())
        pieces.append(copy_out(path, folder, check, _checked_several))
    return Listing.concatenate(pieces)


def _several_classes(prefix: str, rows: Iterator[int], name: str, classes: list[int]) -> tuple[str, int]:
    return shards.key_of_several(f"{prefix}-{next(rows):06d}", classes), classes[0]


def copy_out(
    path: Path,
    folder: Path,
    check: Callable[[str, Any], tuple[str, int]],
    checked: Checked | None = None,
) -> Listing:
    """Copy all images of a parquet file into one file, folder/<its name>.bin, and list them.

    check(image name, label) returns the image's key (name without suffix) and label, or raises
    ValueError. checked: as in `rows`. An existing complete copy is reused.
    """
    target, index = folder / f"{path.stem}.bin", folder / f"{path.stem}.npz"
    stat = path.stat()
    stamp = np.array([stat.st_size, stat.st_mtime_ns])
    if index.exists():
        with np.load(index, allow_pickle=False) as columns:
            if np.array_equal(columns["stamp"], stamp) and target.exists():
                return Listing([str(target)], **{k: columns[k] for k in columns if k != "stamp"})
    found: list[Found] = []
    with storage.atomic(target) as tmp, open(tmp, "wb") as file:
        for name, data, label in rows(path, checked):
            found.append(Found(*check(name, label), str(target), "", file.tell(), len(data)))
            file.write(data)
            advance(1)
    listing = Listing.of(found)
    with storage.atomic(index) as tmp, open(tmp, "wb") as file:
        arrays = {k: v for k, v in vars(listing).items() if k != "files"}
        np.savez(file, allow_pickle=False, stamp=stamp, **arrays)
    return listing


def rows(path: Path, checked: Checked | None = None) -> Iterator[tuple[str, bytes, Any]]:
    """Yield (file name, image bytes, label) of each row; ValueError if a row lacks one of them.

    checked(path, image, label) returns these three instead, for a file with other labels.
    """
    # No buffer_size: with one, pyarrow allocates the size that a page claims, which may be 2 GB in a damaged file.
    with _reader(path) as pq, pq.ParquetFile(path, pre_buffer=False) as file:
        columns = set(file.schema_arrow.names)
        if not {"image", "label"} <= columns:
            raise ValueError(f"{path} has columns {', '.join(sorted(columns))}; expected image and label")
        footers.check_sizes(path, file.metadata)
        for batch in file.iter_batches(ROWS, columns=["image", "label"]):
            batch.validate(full=True)  # damaged offsets would crash the process
            for row in batch.to_pylist():
                yield (checked or _checked)(path, row["image"], row["label"])


def count(path: Path) -> int:
    """Return the number of rows of a parquet file, reading only its footer."""
    with _reader(path) as pq:
        return int(pq.read_metadata(path).num_rows)


@contextlib.contextmanager
def _reader(path: Path) -> Iterator[Any]:
    """Yield pyarrow.parquet; errors in the with block become ValueErrors that name the file."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError("parquet files need pyarrow: pip install 'modelsoups[parquet]'") from error
    try:
        yield pyarrow.parquet
    except (pyarrow.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{path} is truncated or not a parquet file ({reason}); download it again") from error


def _checked_several(path: Path, image: Any, label: Any) -> tuple[str, bytes, list[int]]:
    """Return an image of several classes, without a name; ValueError if it has no bytes or no class of ImageNet."""
    data = image.get("bytes") if isinstance(image, dict) else None
    if not (data and isinstance(data, bytes)):
        raise ValueError(f"{path}: a row has no image bytes (image.bytes); download it again")
    if not isinstance(label, list) or not label or not all(type(c) is int and 0 <= c < CLASSES for c in label):
        said = f"an image has label {str(label)[:30]!r}, not a list of classes from 0 to {CLASSES - 1}"
        raise ValueError(f"{path}: {said}; download it again")
    return "", data, list(dict.fromkeys(label))


def _checked(path: Path, image: Any, label: Any) -> tuple[str, bytes, int]:
    data, name = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (None, None)
    if not (data and isinstance(data, bytes)):
        raise ValueError(f"{path}: a row has no image bytes (image.bytes); download it again")
    if not (name and isinstance(name, str)):
        raise ValueError(f"{path}: a row has no file name (image.path); download it again")
    if label is not None and (not isinstance(label, int) or isinstance(label, bool)):
        raise ValueError(f"{path}: {name} has label {str(label)[:30]!r}, not a class number; download it again")
    if label is None or label < 0:
        way_out = "move the test split elsewhere, as it has no labels"
        raise ValueError(f"{path}: {name} has label {label}; {way_out}")
    return name, data, label
