"""Checks that no image of a data set is missing, and that the disk has room for the shards."""

import shutil
from pathlib import Path

import numpy as np

from modelsoups.data.imagenet import metadata, projections
from modelsoups.data.imagenet.listing import Listing

SMALLEST_CLASS = 732  # images, of the training set; the largest class has 1300
OBJECTNET_BETA = 18_514  # images


def check(name: str, listing: Listing, source: str) -> None:
    """Raise ValueError, naming five, if a data set or class has too few or too many images.

    A set whose number of images is not known (ImageNet-D) is not checked.
    """
    spec = metadata.SETS[name]
    if spec.images is None:
        return
    if spec.layout == "val":
        present = set(np.char.decode(listing.key_N, "ascii").tolist())
        missing = sorted({f"ILSVRC2012_val_{i:08d}" for i in range(1, 50_001)} - present)
        problems = [f"no {_first_five(missing)}"] if missing else []
    else:
        problems = _by_class(name, listing) if spec.layout != "hard" else []
    if difference := len(listing) - spec.images:
        problems.insert(0, f"{abs(difference):,} {'missing' if difference < 0 else 'extra'} images")
    if not problems:
        return
    beta = spec.layout == "objectnet" and len(listing) == OBJECTNET_BETA
    hint = "this is ObjectNet beta; download version 1.0" if beta else "restore the original files"
    found = f"{name}: found {len(listing):,} of {spec.images:,} images in {source}: {'; '.join(problems)}"
    raise ValueError(f"{found}; {hint}, or set data.check_counts=false to accept these images")


def check_free_space(folder: Path, needed: int, what: str) -> None:
    """Raise ValueError if the disk lacks the `needed` bytes to write `what` to `folder`."""
    existing = next(filter(Path.exists, (folder, *folder.absolute().parents)))
    free = shutil.disk_usage(existing).free
    if free < needed:
        sizes = f"needs {needed / 1e9:,.1f} GB in {folder}, which has {free / 1e9:,.1f} GB free"
        raise ValueError(f"{what}: writing {sizes}; choose another data.dir=..., or free space")


def _by_class(name: str, listing: Listing) -> list[str]:
    """Return messages that name the classes without images and the classes with too few images."""
    spec = metadata.SETS[name]
    numbers = spec.layout == "numbers"
    labels = list(map(str, range(1000))) if numbers else projections.label_names(name)
    least = spec.per_class or (SMALLEST_CLASS if spec.layout == "train" else 1)
    counts = np.bincount(listing.label_N, minlength=len(labels)).tolist()
    absent = [label for label, count in zip(labels, counts, strict=True) if not count]
    short = [f"{x} ({count})" for x, count in zip(labels, counts, strict=True) if 0 < count < least]
    problems = []
    for found, state in ((absent, "without images"), (short, f"with fewer than {least} images")):
        if found:
            classes = f"{len(found):,} class{'es' if len(found) > 1 else ''}"
            problems.append(f"{classes} {state}: {_first_five(found)}")
    return problems


def _first_five(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
