"""The label space of each set, and the projection of logits over the 1000 classes to it."""

from functools import cache
from typing import Any

from modelsoups.data.imagenet import metadata
from modelsoups.disk import storage
from modelsoups.disk.paths import ASSETS


def projection(name: str) -> dict[str, Any] | None:
    """Return a set's projection for `stats.projection.project`; None if it has all 1000 classes."""
    spec = metadata.SETS[name]
    if spec.subset:
        return {"kind": "subset", "indices": list(subset(spec.subset))}
    if spec.layout == "objectnet":
        return {"kind": "groups", "groups": [list(objectnet()[folder]) for folder in scored_folders()]}
    return None


def label_names(name: str) -> list[str]:
    """Return the wnid, or ObjectNet folder, of each label of a set."""
    spec = metadata.SETS[name]
    if spec.layout == "objectnet":
        return list(scored_folders())
    return [metadata.wnids()[c] for c in subset(spec.subset)] if spec.subset else list(metadata.wnids())


@cache
def subset(name: str) -> tuple[int, ...]:
    """Return the class indices of ImageNet-R or -A ("r", "a"): label i is class subset[i]."""
    wnids = metadata.timm_wnids(f"imagenet_{name}_synsets.txt")
    return tuple(map(metadata.class_of().__getitem__, wnids))


@cache
def objectnet() -> dict[str, tuple[int, ...]]:
    """Return the ImageNet classes of ObjectNet's 313 folders; 200 unscored folders have none."""
    table = storage.read_json(ASSETS / "imagenet" / "objectnet_classes.json")
    return {folder: tuple(entry["imagenet_indices"]) for folder, entry in sorted(table.items())}


@cache
def scored_folders() -> tuple[str, ...]:
    """Return ObjectNet's 113 folders with ImageNet classes, in the order of its labels."""
    return tuple(folder for folder, classes in objectnet().items() if classes)
