"""The hold-out: 26 images a class of the training set (26,000, "2%"), on which soups are chosen (section 3.1).

Either by rule, the 26 of a class whose names have the smallest sha256, which depends on nothing but the names; or as
the authors' imagenet_98_idxs.npy says, which the released checkpoints need: about 98% of any other split was in
their training data.

Legend: N images of the whole training set.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from modelsoups.data.imagenet.listing import Listing
from modelsoups.disk import storage

ALL_IMAGES = 1_281_167
KNOWN_ROW, KNOWN_NAME = 1000, "n01675722_4108"  # the authors' file: held-out image number 1000, counted from 0


def rule(per_class: int, file: str | None) -> dict[str, Any]:
    """What a split is made from, for manifests: equal rules on the same images give the same split."""
    if file is None:
        return {"rule": "smallest sha256 of the name", "per_class": per_class}
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(f"data.holdout_file={file} does not exist; null splits by the hash of the file names")
    return {"rule": "file", "sha256": storage.file_sha256(path), "per_class": per_class}


def split(listing: Listing, per_class: int, file: str | None) -> np.ndarray:
    """held_N: whether each training image is held out. The listing is in order (`Listing.in_order`)."""
    labels, counts = np.unique(listing.label_N, return_counts=True)
    small = np.flatnonzero(counts <= per_class)
    if len(small):
        name = listing.key(int(np.flatnonzero(listing.label_N == labels[small[0]])[0])).partition("_")[0]
        raise ValueError(
            f"classes too small to hold out {per_class} images: {len(small):,}, first {name} with {counts[small[0]]}; "
            "complete the training images, or set data.holdout_per_class"
        )
    return by_hash(listing, per_class) if file is None else from_file(Path(file).expanduser(), listing, per_class)


def by_hash(listing: Listing, per_class: int) -> np.ndarray:
    """held_N by the rule: of each class the names with the smallest sha256."""
    digest_N = np.array([hashlib.sha256(key).digest() for key in listing.key_N.tolist()], dtype="S32")
    order = np.lexsort((digest_N, listing.label_N))
    label_N = listing.label_N[order]
    rank_N = np.arange(len(order)) - np.searchsorted(label_N, label_N, side="left")
    held_N = np.zeros(len(order), dtype=bool)
    held_N[order[rank_N < per_class]] = True
    return held_N


def from_file(path: Path, listing: Listing, per_class: int) -> np.ndarray:
    """held_N of the authors' index file: 1.0 marks a held-out image (in spite of its name), in ImageFolder's order.

    That order is sorted wnids, then file names as strings, which is the order of the keys. Raises ValueError when
    the file is not one number an image, not 0 and 1, not per_class a class, or marks other images than the authors'.
    """
    try:
        marks_N = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is not a NumPy array ({error})") from error
    if marks_N.shape != (len(listing),):
        raise ValueError(f"{path}: shape {marks_N.shape}, expected ({len(listing)},), one number a training image")
    if not np.isin(marks_N, (0, 1)).all():
        raise ValueError(f"{path}: has values other than 0 and 1")
    held_N = marks_N == 1
    classes = np.unique(listing.label_N)
    counts = np.bincount(listing.label_N[held_N], minlength=classes.max() + 1)[classes]
    if (counts != per_class).any():
        raise ValueError(
            f"{path}: holds out {counts.min()} to {counts.max()} images a class, {held_N.sum():,} in all; expected "
            f"{per_class} of each class"
        )
    if len(listing) == ALL_IMAGES and (name := listing.key(int(np.flatnonzero(held_N)[KNOWN_ROW]))) != KNOWN_NAME:
        raise ValueError(f"{path}: image {KNOWN_ROW} of the hold-out is {name}, expected {KNOWN_NAME} as the authors'")
    return held_N


def write_names(path: Path, listing: Listing, held_N: np.ndarray, rule_: dict[str, Any]) -> dict[str, Any]:
    """Write the split as a list of names, and return what manifests keep of it."""
    names = sorted(str(key, "ascii") for key in listing.key_N[held_N].tolist())
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    summary = {**rule_, "images": len(names), "of": len(listing), "sha256_of_names": digest}
    storage.write_json(path, {**summary, "names": names})
    return summary
