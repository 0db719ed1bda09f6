"""Holds out 26 training images per class (26,000 images, "2%"; section 3.1), to choose soups.

By default these are the images whose names have the smallest sha256. The authors' checkpoints need
the authors' hold-out (imagenet_98_idxs.npy), as they were trained on 98% of any other one.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from modelsoups.data.imagenet.listing import Listing
from modelsoups.disk import storage

ALL_IMAGES = 1_281_167
KNOWN_ROW = 1000  # index, from 0, among the authors' held-out images
KNOWN_NAME = "n01675722_4108"  # name of the image at that index


def rule(per_class: int, file: str | None) -> dict[str, Any]:
    """Describe in JSON how the hold-out is chosen; raise ValueError if `file` does not exist."""
    if file is None:
        return {"rule": "smallest sha256 of the name", "per_class": per_class}
    path = Path(file).expanduser()
    if not path.is_file():
        way_out = "correct it, or set null to choose by name hash"
        raise ValueError(f"data.holdout_file={file} does not exist; {way_out}")
    return {"rule": "file", "sha256": storage.file_sha256(path), "per_class": per_class}


def split(listing: Listing, per_class: int, file: str | None) -> np.ndarray:
    """Return a boolean per training image: held out or not. Raise ValueError for small classes."""
    labels, counts = np.unique(listing.label_N, return_counts=True)
    small = np.flatnonzero(counts <= per_class)
    if len(small):
        row = int(np.flatnonzero(listing.label_N == labels[small[0]])[0])
        first = f"for example {listing.key(row).partition('_')[0]} with {counts[small[0]]}"
        reason = f"{len(small):,} classes are too small to hold out {per_class} images, {first}"
        raise ValueError(f"{reason}; complete the training images, or lower data.holdout_per_class")
    return by_hash(listing, per_class) if file is None else from_file(Path(file).expanduser(), listing, per_class)


def by_hash(listing: Listing, per_class: int) -> np.ndarray:
    digests = [hashlib.sha256(key).digest() for key in listing.key_N.tolist()]
    order = np.lexsort((np.array(digests, dtype="S32"), listing.label_N))
    label_N = listing.label_N[order]
    rank_N = np.arange(len(order)) - np.searchsorted(label_N, label_N, side="left")
    held_N = np.zeros(len(order), dtype=bool)
    held_N[order[rank_N < per_class]] = True
    return held_N


def from_file(path: Path, listing: Listing, per_class: int) -> np.ndarray:
    """Read the authors' .npy file as booleans: 1.0 in row i means that image i is held out.

    Raises ValueError for a wrong shape, value or number per class, or if it is not their split.
    """
    try:
        marks_N = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is not a NumPy array ({error}); download it again") from error
    if marks_N.shape != (len(listing),):
        raise ValueError(f"{path}: it has shape {marks_N.shape}, expected ({len(listing)},), one number per image")
    if not np.isin(marks_N, (0, 1)).all():
        raise ValueError(f"{path}: it has values other than 0 and 1 (1 means held out)")
    held_N = marks_N == 1
    classes = np.unique(listing.label_N)
    counts = np.bincount(listing.label_N[held_N], minlength=classes.max() + 1)[classes]
    if (counts != per_class).any():
        found = f"it holds out {counts.min()} to {counts.max()} images per class, {held_N.sum():,} in total"
        raise ValueError(f"{path}: {found}; expected {per_class} of each class")
    if len(listing) == ALL_IMAGES:
        name = listing.key(int(np.flatnonzero(held_N)[KNOWN_ROW]))
        if name != KNOWN_NAME:
            found = f"image {KNOWN_ROW} of the hold-out is {name}, but {KNOWN_NAME} in the authors' split"
            raise ValueError(f"{path}: {found}; use the authors' imagenet_98_idxs.npy")
    return held_N


def write_names(path: Path, listing: Listing, held_N: np.ndarray, split_rule: dict[str, Any]) -> dict[str, Any]:
    """Write the held-out images' names to a JSON file; return a summary of them for manifests."""
    names = sorted(np.char.decode(listing.key_N[held_N], "ascii").tolist())
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    summary = {**split_rule, "images": len(names), "of": len(listing), "sha256_of_names": digest}
    storage.write_json(path, {**summary, "names": names})
    return summary
