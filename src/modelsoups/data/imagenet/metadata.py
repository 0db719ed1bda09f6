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

    layout is "train" or "val" for ImageNet's images; "wnids", "numbers", "objectnet" or "imagenet_d" for
    test sets, after the names of class folders; "hard" for ImageNet-Hard, whose images have several classes;
    "real", "multilabel" or "imagenet_x" for other labels of val's images.
    """

    title: str
    role: str  # train, holdout, test, shift, or extra (not in the mean over the shifts)
    layout: str
    images: int | None = None  # the expected number; None if it is not known
    per_class: int | None = None  # the expected number per class; None if classes differ
    subset: str | None = None  # timm's list of the classes in the set
    folders: Sequence[str] = ()  # searched for under data.root, in this order
    wds: str | None = None  # the name of the set in CLIP_benchmark and DataComp
    source: str | None = None  # the key of data.sources with its files, which other sets share; None: its own name


CORRUPTIONS = (  # the folders of ImageNet-C (hendrycks/robustness, ImageNet-C/test.py): 15, and then 4 for validation
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    *("speckle_noise", "gaussian_blur", "spatter", "saturate"),
)
ALL = "all"  # every image of ImageNet-X
FACTORS = (  # of ImageNet-X (facebookresearch/imagenetx, imagenet_x/utils.py)
    *("pose", "background", "pattern", "color", "smaller", "shape", "partial_view", "subcategory", "texture"),
    *("larger", "darker", "object_blocking", "person_blocking", "style", "brighter", "multiple_objects"),
)
ATTRIBUTES = ("background", "texture", "material")  # the folders of ImageNet-D


def _families() -> dict[str, SetSpec]:
    """Return the sets of ImageNet-C (c_fog_3), ImageNet-D (d_texture) and ImageNet-X (x_pose, x_all)."""
    found = {}
    for kind in CORRUPTIONS:
        for severity in range(1, 6):
            inside, title = f"{kind}/{severity}", f"ImageNet-C {kind.replace('_', ' ')} {severity}"
            folders = (f"imagenet-c/{inside}", f"ImageNet-C/{inside}", inside)
            found[f"c_{kind}_{severity}"] = SetSpec(title, "extra", "wnids", 50_000, 50, None, folders, None, "c")
    for name in ATTRIBUTES:
        folders = (f"ImageNet-D/{name}", f"imagenet-d/{name}", name)
        found[f"d_{name}"] = SetSpec(f"ImageNet-D {name}", "extra", "imagenet_d", folders=folders, source="d")
    for name in (*FACTORS, ALL):
        found[f"x_{name}"] = SetSpec(f"ImageNet-X {name.replace('_', ' ')}", "extra", "imagenet_x", source="x")
    return found


_LISTED = {name: SetSpec(**row) for name, row in storage.read_json(ASSETS / "imagenet" / "sets.json").items()}
SETS = _LISTED | _families()


def source_key(name: str) -> str:
    """Return the key of data.sources that has a set's location; the hold-out's images are those of train."""
    spec = SETS[name]
    return "train" if spec.layout == "train" else spec.source or name


def choices() -> str:
    """Return the names of all sets in words, for messages; those of a family are described."""
    families = f"c_CORRUPTION_SEVERITY (c_fog_3), d_{', d_'.join(ATTRIBUTES)}, x_FACTOR (x_pose, x_all)"
    return f"{', '.join(_LISTED)}, {families}"


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
