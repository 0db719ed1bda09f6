"""Describes ImageNet and its test sets: classes, labels, image counts and names of folders."""

import importlib.util
import runpy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from modelsoups.disk import storage
from modelsoups.disk.paths import ASSETS

OBJECTNET_BORDER = 2  # pixels of the red frame around ObjectNet's images; see `border`


@dataclass(frozen=True)
class SetSpec:
    """One of ImageNet's data sets, an entry of assets/imagenet/sets.json.

    layout is "train" or "val" for ImageNet's images; "wnids", "numbers" or "objectnet" for test
    sets, after the names of class folders; "real" or "multilabel" for other labels of val's images.
    """

    title: str
    role: str  # train, holdout, test, shift, or extra (not in the mean over the shifts)
    layout: str
    images: int | None = None  # the expected number
    per_class: int | None = None  # the expected number per class; None if classes differ
    subset: str | None = None  # timm's list of the classes in the set
    folders: Sequence[str] = ()  # searched for under data.root, in this order
    wds: str | None = None  # the name of the set in CLIP_benchmark and DataComp


SETS = {name: SetSpec(**row) for name, row in storage.read_json(ASSETS / "imagenet" / "sets.json").items()}


@cache
def wnids() -> tuple[str, ...]:
    """Return the WordNet ids (such as n01440764) of the 1000 classes, by class index."""
    return timm_wnids("imagenet_synsets.txt")


@cache
def class_of() -> dict[str, int]:
    """Return a dictionary from WordNet id (such as n01440764) to class index."""
    return {wnid: index for index, wnid in enumerate(wnids())}


@cache
def val_labels() -> tuple[int, ...]:
    """Return the class index of each validation image, ILSVRC2012_val_00000001 to 50000."""
    return tuple(storage.read_json(ASSETS / "imagenet" / "imagenet_val_labels.json"))


@cache
def real_labels() -> tuple[tuple[int, ...], ...]:
    """Return the ReaL labels (Beyer et al. 2020) of each validation image; 3,163 have none."""
    return tuple(map(tuple, storage.read_json(_timm("imagenet_real_labels.json"))))


def border(name: str, protocol: str) -> int:
    """Return how many pixels to cut off each side of a set's images.

    protocol=paper cuts off ObjectNet's red frame, as its authors ask; protocol=released keeps it,
    as the official code of Model soups does: it adds the crop only after building its data loader.
    """
    return OBJECTNET_BORDER if SETS[name].layout == "objectnet" and protocol == "paper" else 0


def class_names() -> list[str]:
    """Return the 1000 class names of CLIP's prompts; missile and sunglasses occur twice."""
    return list(_open_clip()["IMAGENET_CLASSNAMES"])


def templates() -> list[str]:
    """Return the 80 CLIP prompt templates for ImageNet, with {} in place of the class name."""
    return [template("{}") for template in _open_clip()["OPENAI_IMAGENET_TEMPLATES"]]


@cache
def _open_clip() -> dict[str, Any]:
    """Return the variables of open_clip's zero_shot_metadata.py, without importing open_clip."""
    return runpy.run_path(str(_folder("open_clip") / "zero_shot_metadata.py"))


def timm_wnids(name: str) -> tuple[str, ...]:
    return tuple(_timm(name).read_text(encoding="utf-8").split())


def _timm(name: str) -> Path:
    return _folder("timm") / "data" / "_info" / name


def _folder(package: str) -> Path:
    """Return the folder of an installed Python package without importing it."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
