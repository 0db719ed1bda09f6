"""Finds and reads the images of CIFAR-10 and CIFAR-10.1, from any of their usual forms, as pixels.

CIFAR-10: the official batches (cifar-10-batches-py/) or a folder for each class (train/airplane/...).
CIFAR-10.1 (https://github.com/modestyachts/CIFAR-10.1): cifar10.1_v6_data.npy and cifar10.1_v6_labels.npy.
Shape letters: N images, H height, W width, C colours.
"""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelsoups.data import pictures, walk
from modelsoups.data.cifar import pickles

# label_names of batches.meta
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SIDE = 32  # pixels
BATCHES = {"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)}
IMAGES = {"train": 50_000, "test": 10_000, "v4": 2_021, "v6": 2_000}  # official numbers
PER_CLASS = {"train": 5_000, "test": 1_000, "v6": 200}  # v4 is slightly unbalanced
PLACES = ("", "cifar-10-batches-py", "cifar10", "CIFAR-10-images", "CIFAR-10")
PLACES_OF_NEW = ("", "CIFAR-10.1", "CIFAR-10.1/datasets", "datasets", "cifar10.1")
ARCHIVE = "cifar-10-python.tar.gz"


@dataclass(frozen=True)
class Source:
    """The files of one part of the data: train, test, v4 or v6."""

    part: str
    form: str  # batches, folders or npy
    paths: tuple[Path, ...]

    def __str__(self) -> str:
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return f"{self.paths[0]}{more}"

    def digest(self) -> str:
        """Return a hash of the files' names and sizes."""
        files = self.paths
        if self.form == "folders":
            folders = walk.class_folders(self.paths[0])
            files = tuple(path for places in folders.values() for _, path in walk.images(places))
        listed = [f"{path.parent.name}/{path.name} {path.stat().st_size}" for path in files]
        return hashlib.sha256("\n".join(listed).encode()).hexdigest()[:16]


def find(part: str, root: str | None) -> Source:
    """Return the files of a part of the data below data.root; ValueError if there are none."""
    if root is None:
        raise ValueError("data.root is null; set it to CIFAR-10's folder (see conf/data/cifar10.yaml)")
    base = Path(root).expanduser()
    if not base.is_dir():
        raise ValueError(f"data.root={root} is not a folder; set it to the folder of CIFAR-10's files")
    if part not in BATCHES:
        return _find_new(part, base)
    for place in (base / name for name in PLACES):
        present = [place / name for name in BATCHES[part] if (place / name).exists()]
        if present:
            absent = [name for name in BATCHES[part] if not (place / name).exists()]
            if absent:
                raise ValueError(f"{place / absent[0]} is missing; extract {ARCHIVE} again")
            return Source(part, "batches", tuple(present))
    for place in (base / name for name in PLACES):
        if (place / part).is_dir():
            return Source(part, "folders", (place / part,))
    if (base / ARCHIVE).exists():
        raise ValueError(f"{base / ARCHIVE} is packed; unpack it there: tar -xzf {ARCHIVE}")
    expected = f"cifar-10-batches-py/{BATCHES[part][0]} or {part}/{CLASSES[0]}/"
    raise ValueError(f"data.root={root} has no {expected}; set it to the folder of CIFAR-10's files")


def _find_new(part: str, base: Path) -> Source:
    names = [f"cifar10.1_{part}_{what}.npy" for what in ("data", "labels")]
    for place in (base / name for name in PLACES_OF_NEW):
        if any((place / name).exists() for name in names):
            absent = [name for name in names if not (place / name).exists()]
            if absent:
                raise ValueError(f"{place / absent[0]} is missing; its other half is there: download both files")
            return Source(part, "npy", tuple(place / name for name in names))
    way_out = "take it from https://github.com/modestyachts/CIFAR-10.1, or leave it out of data.shifts and data.extra"
    raise ValueError(f"{base} has no {names[0]} (CIFAR-10.1); {way_out}")


def read(source: Source, complete: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return (pixels_NHWC uint8, labels_N); ValueError, with the file, for anything unexpected.

    complete: also refuse other numbers of images than the official ones (data.check_counts).
    """
    pixels_NHWC, labels_N = {"batches": _batches, "folders": _folders, "npy": _arrays}[source.form](source)
    if complete:
        _check_counts(source, labels_N)
    return pixels_NHWC, labels_N


def _check_counts(source: Source, labels_N: np.ndarray) -> None:
    way_out = "restore the official files, or set data.check_counts=false to accept these images"
    official, each = IMAGES[source.part], PER_CLASS.get(source.part)
    if len(labels_N) != official:
        raise ValueError(f"{source} has {len(labels_N):,} images, not the official {official:,}; {way_out}")
    for name, count in zip(CLASSES, np.bincount(labels_N, minlength=len(CLASSES)).tolist(), strict=True):
        if each is not None and count != each:
            raise ValueError(f"{source} has {count:,} images of class {name}, not the official {each:,}; {way_out}")


def _batches(source: Source) -> tuple[np.ndarray, np.ndarray]:
    meta = source.paths[0].parent / "batches.meta"
    if meta.exists() and (names := pickles.read(meta).get("label_names")) != CLASSES:
        shown = str(names)[:60] if isinstance(names, list) and all(type(n) is str for n in names) else "something else"
        raise ValueError(f"{meta} has the classes {shown}, not CIFAR-10's; set data.root to CIFAR-10's files")
    parts, labels = [], []
    for path in source.paths:
        batch = pickles.read(path)
        rows, given = batch.get("data"), batch.get("labels")
        if not isinstance(rows, np.ndarray) or rows.shape[1] != 3 * SIDE * SIDE or not isinstance(given, list):
            raise ValueError(f"{path} lacks data of {3 * SIDE * SIDE} bytes an image, or labels; is it CIFAR-10's?")
        parts.append(rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
        labels.append(_labels(path, given, len(rows)))
    return np.concatenate(parts), np.concatenate(labels)


def _labels(path: Path, given: Any, images: int) -> np.ndarray:
    """Return labels as an array; ValueError unless there is one of 0 to 9 for each image."""
    if len(given) != images:
        raise ValueError(f"{path} has {len(given):,} labels for {images:,} images; download it again")
    for number, label in enumerate(given):
        if type(label) is not int or not 0 <= label < len(CLASSES):
            shown = label if type(label) is int and abs(label) < 10**9 else "something else"
            raise ValueError(f"{path}: image {number} has label {shown}, expected 0 to 9; download it again")
    return np.array(given, dtype=np.int64)


def _arrays(source: Source) -> tuple[np.ndarray, np.ndarray]:
    pixels_NHWC, labels_N = (_npy(path) for path in source.paths)
    data, labels = source.paths
    if pixels_NHWC.dtype != np.uint8 or pixels_NHWC.shape[1:] != (SIDE, SIDE, 3):
        shape = f"{pixels_NHWC.dtype} of shape {pixels_NHWC.shape}"
        raise ValueError(f"{data} is {shape}, expected uint8 of shape (images, 32, 32, 3); download it again")
    if labels_N.ndim != 1 or labels_N.dtype.kind not in "iu":
        raise ValueError(f"{labels} is {labels_N.dtype} of shape {labels_N.shape}, expected one integer an image")
    return np.asarray(pixels_NHWC), _labels(labels, labels_N.tolist(), len(pixels_NHWC))


def _npy(path: Path) -> np.ndarray:
    """Return a NumPy file as a memory map, so that no header can ask for more memory than the file has."""
    if not path.is_file():
        raise ValueError(f"{path} is not a regular file; download it again")
    try:
        found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path} is truncated or not a NumPy array ({reason}); download it again") from error
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{path} is an archive of arrays, not one .npy array; download it again")
    return found


def _folders(source: Source) -> tuple[np.ndarray, np.ndarray]:
    root = source.paths[0]
    folders = walk.class_folders(root)
    if unknown := sorted(set(folders) - set(CLASSES)):
        raise ValueError(f"{root / unknown[0]} is not a class of CIFAR-10 ({', '.join(CLASSES)}); move it elsewhere")
    if absent := [name for name in CLASSES if name not in folders]:
        raise ValueError(f"{root} has no folder for class {absent[0]}; add it with its images")
    pixels, labels = [], []
    for label, name in enumerate(CLASSES):
        for _, path in walk.images(folders[name]):
            pixels.append(_decoded(path))
            labels.append(label)
    return np.stack(pixels), np.array(labels, dtype=np.int64)


def _decoded(path: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings(action="ignore"):
            opened = pictures.opened(walk.content(path))
            if opened.size != (SIDE, SIDE):
                shown = f"{opened.width} x {opened.height} pixels, but CIFAR-10 has {SIDE} x {SIDE}"
                raise ValueError(f"{shown}; set data.library=folders for other images")
            return np.asarray(pictures.as_rgb(opened))
    except pictures.DAMAGE as error:
        raise ValueError(f"{path} cannot be used: {pictures.reason(error)}") from error
