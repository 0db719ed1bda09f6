"""Prepares CIFAR-10, a hold-out of its training images, and CIFAR-10.1 (data.library=cifar; Figure G.2).

Images become PNG files, without loss. Their order, names and the hold-out depend on the pixels alone, so all
lossless forms of the same images give the same shards.
"""

import functools
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from modelsoups.config.data import DataConfig
from modelsoups.data import roles, shards
from modelsoups.data.cifar import sources
from modelsoups.data.cifar.sources import CLASSES
from modelsoups.data.shards import Json
from modelsoups.workers.processes import run_tasks

TITLES = {
    **{"train": "CIFAR-10 train", "holdout": "CIFAR-10 hold-out", "test": "CIFAR-10"},
    **{"v6": "CIFAR-10.1", "v4": "CIFAR-10.1 (v4)"},
}
ADJECTIVES = ("", "blurry ", "black and white ", "low contrast ", "high contrast ", "bad ", "good ")
TEMPLATES = [  # CIFAR10 in data/prompts.md of https://github.com/openai/CLIP
    *(f"a {word}photo of a {{}}." for word in ADJECTIVES),
    *("a photo of a small {}.", "a photo of a big {}."),
    *(f"a {word}photo of the {{}}." for word in ADJECTIVES),
    *("a photo of the small {}.", "a photo of the big {}."),
]


def names(data: DataConfig) -> list[str]:
    """Return the data sets' names; ValueError for an unknown name, or one that is named twice."""
    wanted = roles.names_of(data)
    for name in wanted:
        if name not in TITLES:
            raise ValueError(f"unknown data set {name}; choose from {', '.join(TITLES)}")
    return wanted


def inputs(data: DataConfig, protocol: str, name: str) -> Json:
    """Return what identifies a data set: the names and sizes of its files, and how the hold-out is split."""
    made: Json = {"library": "cifar", "set": name, "files": _source(data, name).digest()}
    made |= {"holdout_per_class": data.holdout_per_class} if name in ("train", "holdout") else {}
    return made | ({"limit": data.limit} if name == data.train and data.limit is not None else {})


def facts(data: DataConfig, protocol: str, name: str) -> Json:
    """Return a data set's metadata for its manifest.json: name, role, classes, prompts, ..."""
    role = roles.role_of(data, name)
    about = {"name": name, "title": TITLES[name], "role": role}
    return {**about, "classes": CLASSES, "templates": TEMPLATES, "projection": None}


def make(data: DataConfig, protocol: str, todo: Sequence[str], workers: int) -> dict[str, int]:
    """Write the data sets in `todo`; return image counts by name. ValueError for wrong files."""
    task = functools.partial(_make, data, protocol)
    return dict(run_tasks(task, todo, min(workers, 2), "prepare"))  # each holds its images in memory


def _source(data: DataConfig, name: str) -> sources.Source:
    return sources.find("train" if name == "holdout" else name, data.root)


def _make(data: DataConfig, protocol: str, name: str) -> int:
    source = _source(data, name)
    pixels_NHWC, labels_N = sources.read(source, data.check_counts)
    digests = [hashlib.sha256(pixels_HWC.tobytes()).hexdigest() for pixels_HWC in pixels_NHWC]
    order_N = np.lexsort((np.array(digests), labels_N))
    if name in ("train", "holdout"):
        held_N = holdout(labels_N[order_N], np.array(digests)[order_N], data.holdout_per_class)
        order_N = order_N[held_N if name == "holdout" else ~held_N]
    if name == data.train and data.limit is not None:
        order_N = limited(order_N, np.array(digests), data.limit)
    made_from, known = inputs(data, protocol, name), facts(data, protocol, name)
    known["source"] = {"form": source.form, "path": str(source.paths[0])}
    samples = _samples(pixels_NHWC, labels_N, digests, order_N.tolist())
    return shards.write_set(Path(data.dir) / name, samples, data.shard_images, made_from, known)


def holdout(labels_N: np.ndarray, digests_N: np.ndarray, per_class: int) -> np.ndarray:
    """Return a boolean per image: held out or not. These are the images of each class that come first.

    The images are sorted by class and hash; equal ones stay together. ValueError for a class that is too small.
    """
    held_N = np.zeros(len(labels_N), dtype=bool)
    for label, name in enumerate(CLASSES):
        rows = np.flatnonzero(labels_N == label)
        end = per_class
        while end < len(rows) and digests_N[rows[end]] == digests_N[rows[end - 1]]:
            end += 1
        if end >= len(rows):
            way_out = "complete the training images, or lower data.holdout_per_class"
            raise ValueError(f"class {name} has {len(rows):,} images, too few to hold out {per_class:,}; {way_out}")
        held_N[rows[:end]] = True
    return held_N


def limited(order_N: np.ndarray, digests_M: np.ndarray, limit: int) -> np.ndarray:
    """Return `limit` of the images in order_N (indices into digests_M), in its order: by another part of their hash."""
    ranks = np.array([digest[::-1] for digest in digests_M[order_N]])
    return order_N[np.sort(np.argsort(ranks, kind="stable")[:limit])]


def _samples(
    pixels_NHWC: np.ndarray, labels_N: np.ndarray, digests: list[str], order: list[int]
) -> Iterator[shards.Sample]:
    copies: Counter[str] = Counter()
    for row in order:
        key = digests[row][:16]
        copies[key] += 1
        unique = key if copies[key] == 1 else f"{key}-{copies[key]}"
        yield unique, shards.encode_png(np.ascontiguousarray(pixels_NHWC[row])), "png", int(labels_N[row])
