"""Maps logits over ImageNet's 1000 classes to the classes that each test set is scored on."""

from functools import cache
from typing import Any

from modelsoups.data.imagenet import metadata
from modelsoups.disk import storage
from modelsoups.disk.paths import ASSETS


def projection(name: str) -> dict[str, Any] | None:
    """Return how the 1000 logits map to a test set's classes; None if it has all 1000 classes."""
    spec = metadata.SETS[name]
    if spec.subset:
        return {"kind": "subset", "indices": list(subset(spec.subset))}
    if spec.layout == "objectnet":
        return {"kind": "groups", "groups": [list(objectnet()[folder]) for folder in scored_folders()]}
    return None


def label_names(name: str) -> list[str]:
    """Return each label's name: its WordNet id, or the folder name for ObjectNet."""
    spec = metadata.SETS[name]
    if spec.layout == "objectnet":
        return list(scored_folders())
    return [metadata.wnids()[c] for c in subset(spec.subset)] if spec.subset else list(metadata.wnids())


@cache
def subset(name: str) -> tuple[int, ...]:
    """Return the ImageNet class index of each label of ImageNet-R ("r") or ImageNet-A ("a")."""
    wnids = metadata.timm_wnids(f"imagenet_{name}_synsets.txt")
    return tuple(map(metadata.class_of().__getitem__, wnids))


@cache
def objectnet() -> dict[str, tuple[int, ...]]:
    """Return the ImageNet class indices of ObjectNet's 313 folders; 200 of them have none."""
    table = storage.read_json(ASSETS / "imagenet" / "objectnet_classes.json")
    return {folder: tuple(entry["imagenet_indices"]) for folder, entry in sorted(table.items())}


@cache
def scored_folders() -> tuple[str, ...]:
    """Return the 113 ObjectNet folders with an ImageNet class; the i-th folder has label i."""
    return tuple(folder for folder, classes in objectnet().items() if classes)
