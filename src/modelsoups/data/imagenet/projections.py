"""The label space of each set, and how logits over the 1000 classes are projected to it."""

from functools import cache
from typing import Any

from modelsoups.data.imagenet import metadata
from modelsoups.disk import storage
from modelsoups.disk.paths import ASSETS


def projection(name: str) -> dict[str, Any] | None:
    """The projection of a set for `stats.projection.project`; None if its labels are the classes."""
    spec = metadata.SETS[name]
    if spec.subset:
        return {"kind": "subset", "indices": list(subset(spec.subset))}
    if spec.layout == "objectnet":
        return {"kind": "groups", "groups": [list(objectnet()[folder]) for folder in scored_folders()]}
    return None


def label_names(name: str) -> list[str]:
    """The wnid, or ObjectNet folder, of each label of a set."""
    spec = metadata.SETS[name]
    if spec.layout == "objectnet":
        return list(scored_folders())
    return [metadata.wnids()[c] for c in subset(spec.subset)] if spec.subset else list(metadata.wnids())


@cache
def subset(name: str) -> tuple[int, ...]:
    """Class indices of ImageNet-R or -A ("r", "a"): label i of the set is class subset[i]."""
    wnids = metadata.timm_wnids(f"imagenet_{name}_synsets.txt")
    return tuple(map(metadata.class_of().__getitem__, wnids))


@cache
def objectnet() -> dict[str, tuple[int, ...]]:
    """ObjectNet's 313 folders -> their ImageNet classes, none for the 200 unscored folders."""
    table = storage.read_json(ASSETS / "imagenet" / "objectnet_classes.json")
    return {folder: tuple(entry["imagenet_indices"]) for folder, entry in sorted(table.items())}


@cache
def scored_folders() -> tuple[str, ...]:
    """ObjectNet's 113 folders with ImageNet classes, in the order of its labels."""
    return tuple(folder for folder, classes in objectnet().items() if classes)
