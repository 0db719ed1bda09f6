"""Are all images there? The numbers of each set are known; what is missing is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from modelsoups.data.imagenet import metadata
from modelsoups.data.imagenet.listing import Listing

SMALLEST_CLASS = 732  # of the training set; the largest has 1300
OBJECTNET_BETA = 18_514


def check(name: str, listing: Listing, source: str) -> None:
    """Raise ValueError that says what is missing, or how many are too many."""
    spec = metadata.SETS[name]
    assert spec.images is not None
    problems = _validation(listing) if spec.layout == "val" else _by_class(name, listing)
    if len(listing) == spec.images and not problems:
        return
    difference = len(listing) - spec.images
    kind = f"{-difference:,} are missing" if difference < 0 else f"{difference:,} are too many" if difference else ""
    beta = spec.layout == "objectnet" and len(listing) == OBJECTNET_BETA
    hint = "this is ObjectNet beta, and 1.0 is needed" if beta else "complete it"
    detail = "; ".join([d for d in (kind, *problems) if d])
    raise ValueError(
        f"{name}: {len(listing):,} of {spec.images:,} images in {source}: {detail}; {hint}, or set "
        "data.check_counts=false to use what is there"
    )


def free_space(folder: Path, needed: int, what: str) -> None:
    """Raise ValueError when the disk cannot hold so many bytes more."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(
            f"{what}: {needed / 1e9:,.1f} GB are needed in {folder}, {free / 1e9:,.1f} GB are free; "
            "choose another data.dir=..., or free some space"
        )


def _validation(listing: Listing) -> list[str]:
    wanted = {f"ILSVRC2012_val_{i:08d}" for i in range(1, 50_001)}
    missing = sorted(wanted - {str(key, "ascii") for key in listing.key_N.tolist()})
    return [f"no {_few(missing)}"] if missing else []


def _by_class(name: str, listing: Listing) -> list[str]:
    """What is odd about the images of each label."""
    spec = metadata.SETS[name]
    labels = [str(i) for i in range(1000)] if spec.layout == "numbers" else metadata.label_names(name)
    counts = np.bincount(listing.label_N, minlength=len(labels)).tolist()
    absent = [label for label, count in zip(labels, counts, strict=True) if not count]
    least = spec.per_class or (SMALLEST_CLASS if spec.layout == "train" else 1)
    short = [f"{label} ({n})" for label, n in zip(labels, counts, strict=True) if 0 < n < least]
    problems = [f"{_classes_of(absent)} without images: {_few(absent)}"] if absent else []
    return [*problems, f"{_classes_of(short)} with less than {least} images: {_few(short)}"] if short else problems


def _classes_of(names: list[str]) -> str:
    return f"{len(names):,} class{'es' * (len(names) > 1)}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
