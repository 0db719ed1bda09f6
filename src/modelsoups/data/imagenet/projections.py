"""Maps logits over ImageNet's 1000 classes to the classes that each test set is scored on."""

from functools import cache
from itertools import chain
from typing import Any

from modelsoups.data.imagenet import metadata
from modelsoups.disk import storage
from modelsoups.disk.paths import ASSETS

IN_IMAGENET_D = {  # folders of ObjectNet and ImageNet-D with the same classes; the other 101 have one name
    "basket": "shopping_basket",
    "butchers_knife": "cleaver",
    "coffee_french_press": "coffee_or_french_press",
    "dress": "gown",
    "drinking_cup": "tea_cup",
    "drying_rack_for_dishes": "drying_rack_for_plates",
    "full_sized_towel": "bath_towel",
    "hand_towel_or_rag": "dishcloth",
    "match": "matchstick",
    "mixing_salad_bowl": "mixing_or_salad_bowl",
    "stuffed_animal": "teddy_bear",
    "t-shirt": "t_shirt",
}


def projection(name: str) -> dict[str, Any] | None:
    """Return how the 1000 logits map to a test set's classes; None if it has all 1000 classes.

    ImageNet-D has ObjectNet's 113 groups of classes and then each other class alone: by its authors'
    code for ImageNet classifiers, the best of all 1000 classes must be in the image's group.
    """
    spec = metadata.SETS[name]
    if spec.subset:
        return {"kind": "subset", "indices": list(subset(spec.subset))}
    if spec.layout not in ("objectnet", "imagenet_d"):
        return None
    groups = [list(objectnet()[folder]) for folder in scored_folders()]
    if spec.layout == "imagenet_d":
        grouped = set(chain.from_iterable(groups))
        groups += [[index] for index in range(len(metadata.wnids())) if index not in grouped]
    return {"kind": "groups", "groups": groups}


def label_names(name: str) -> list[str]:
    """Return each label's name: its WordNet id, or the folder name for ObjectNet and ImageNet-D."""
    spec = metadata.SETS[name]
    if spec.layout == "objectnet":
        return list(scored_folders())
    if spec.layout == "imagenet_d":
        return [IN_IMAGENET_D.get(folder, folder) for folder in scored_folders()]
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
