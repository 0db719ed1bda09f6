"""What is known about ImageNet and its test sets: classes, their order and subsets, labels, counts, where sets lie.

Label order is sorted wnid, which is timm's imagenet_synsets.txt. Class names and templates are open_clip's, equal to
OpenAI's. Labels of a set are positions in its own label space (200 classes for R and A, 113 folders for ObjectNet).
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from modelsoups.disk.paths import ASSETS

OBJECTNET_BORDER = 2  # pixels of red frame in ObjectNet's images; see `border`


@dataclass(frozen=True)
class SetSpec:
    """One data set. `layout` says how its files are read; `folders` are looked for under data.root, in order."""

    title: str
    role: str  # train, holdout, test, shift, or extra (not part of the mean over the shifts)
    layout: str  # train, val (many forms), wnids, numbers, objectnet (folders of images), real, multilabel (labels)
    images: int | None = None  # expected
    per_class: int | None = None  # expected, where every class has as many
    subset: str | None = None  # timm's list of the classes that the set has
    folders: tuple[str, ...] = ()


def _v2(title: str, role: str, *variants: str) -> SetSpec:
    folders = [f"{prefix}-{v}{end}" for v in variants for prefix, end in _V2_NAMES]
    return SetSpec(title, role, "numbers", 10_000, 10, folders=tuple(folders))


_V2_NAMES = (("imagenetv2", "-format-val"), ("imagenetv2", ""), ("ImageNetV2", ""))
SETS: dict[str, SetSpec] = {
    "train": SetSpec("ImageNet train (98%)", "train", "train", 1_281_167),
    "holdout": SetSpec("ImageNet hold-out (2% of train)", "holdout", "train", 1_281_167),
    "val": SetSpec("ImageNet", "test", "val", 50_000, 50),
    "v2": _v2("ImageNet-V2", "shift", "matched-frequency"),
    "r": SetSpec("ImageNet-R", "shift", "wnids", 30_000, subset="r", folders=("imagenet-r", "ImageNet-R")),
    "sketch": SetSpec(
        "ImageNet-Sketch", "shift", "wnids", 50_889, folders=("sketch", "imagenet-sketch", "ImageNet-Sketch")
    ),
    "objectnet": SetSpec(
        "ObjectNet", "shift", "objectnet", 18_574, folders=("objectnet-1.0/images", "objectnet-1.0", "objectnet")
    ),
    "a": SetSpec("ImageNet-A", "shift", "wnids", 7_500, subset="a", folders=("imagenet-a", "ImageNet-A")),
    "v2_top_images": _v2("ImageNet-V2 (top images)", "extra", "top-images"),
    "v2_threshold": _v2("ImageNet-V2 (threshold 0.7)", "extra", "threshold0.7", "threshold-0.7"),
    "real": SetSpec("ImageNet ReaL", "extra", "real", 46_837),
    "multilabel": SetSpec("ImageNet multilabel", "extra", "multilabel", 20_000),
}


@cache
def wnids() -> tuple[str, ...]:
    """The 1000 classes in the order of their indices."""
    return tuple(_timm("imagenet_synsets.txt").read_text(encoding="utf-8").split())


@cache
def class_of() -> dict[str, int]:
    """wnid -> class index."""
    return {wnid: index for index, wnid in enumerate(wnids())}


@cache
def subset(name: str) -> tuple[int, ...]:
    """Class indices of ImageNet-R or -A ("r", "a"), in order: the set's label i is class subset[i]."""
    return tuple(class_of()[w] for w in _timm(f"imagenet_{name}_synsets.txt").read_text(encoding="utf-8").split())


@cache
def objectnet() -> dict[str, tuple[int, ...]]:
    """ObjectNet's 313 folders -> their ImageNet classes; none for the 200 folders that are not scored."""
    table = json.loads((ASSETS / "imagenet" / "objectnet_classes.json").read_text(encoding="utf-8"))
    return {folder: tuple(entry["imagenet_indices"]) for folder, entry in sorted(table.items())}


@cache
def scored_folders() -> tuple[str, ...]:
    """ObjectNet's 113 folders that have ImageNet classes: the order of its labels."""
    return tuple(folder for folder, classes in objectnet().items() if classes)


@cache
def val_labels() -> tuple[int, ...]:
    """Class index of ILSVRC2012_val_00000001 to 50000; the devkit is not needed."""
    return tuple(json.loads((ASSETS / "imagenet" / "imagenet_val_labels.json").read_text(encoding="utf-8")))


@cache
def real_labels() -> tuple[tuple[int, ...], ...]:
    """ReaL (Beyer et al. 2020): the classes of each validation image, none for 3,163 of them; shipped by timm."""
    lists = json.loads(_timm("imagenet_real_labels.json").read_text(encoding="utf-8"))
    return tuple(tuple(labels) for labels in lists)


def projection(name: str) -> dict[str, Any] | None:
    """How logits over the 1000 classes become logits over the set's labels; see `core.metrics.project`."""
    spec = SETS[name]
    if spec.subset:
        return {"kind": "subset", "indices": list(subset(spec.subset))}
    if spec.layout == "objectnet":
        return {"kind": "groups", "groups": [list(objectnet()[folder]) for folder in scored_folders()]}
    return None


def border(name: str, protocol: str) -> int:
    """Pixels to cut off each side before resizing.

    ObjectNet's authors ask for 2, to remove the red frame (protocol=paper). The official evaluator of Model soups
    builds its loader before it adds that crop, so the released numbers are without it (protocol=released).
    """
    return OBJECTNET_BORDER if SETS[name].layout == "objectnet" and protocol == "paper" else 0


def label_names(name: str) -> list[str]:
    """What each label of a set stands for: a wnid, or an ObjectNet folder."""
    spec = SETS[name]
    if spec.layout == "objectnet":
        return list(scored_folders())
    return [wnids()[c] for c in subset(spec.subset)] if spec.subset else list(wnids())


def class_names() -> list[str]:
    """OpenAI's names of the 1000 classes. Two pairs are equal (missile, sunglasses): never key by name."""
    return list(_open_clip().IMAGENET_CLASSNAMES)


def templates() -> list[str]:
    """OpenAI's 80 prompt templates, with {} for the class name."""
    return [template("{}") for template in _open_clip().OPENAI_IMAGENET_TEMPLATES]


@cache
def _open_clip() -> Any:
    """open_clip's module of names and templates, loaded alone: importing all of open_clip takes seconds."""
    spec = importlib.util.spec_from_file_location("zero_shot_metadata", _folder("open_clip") / "zero_shot_metadata.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _timm(name: str) -> Path:
    """A list that timm ships."""
    return _folder("timm") / "data" / "_info" / name


def _folder(package: str) -> Path:
    """Where a package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
