"""The images of iWildCam2020-WILDS v2.0: camera traps, 182 animal species, split by camera and by day.

Columns, splits and file names are those of wilds/datasets/iwildcam_dataset.py and of
dataset_preprocessing/iwildcam/create_split.py in https://github.com/p-lambda/wilds, which also wrote categories.csv.
The numbers of images are those of the official archive, all five also given with an unmodified copy of it at
https://huggingface.co/datasets/emmilly/iwildcam-wilds-v2; 42,791 and 182 also stand in tasklist.yml of
https://github.com/mlfoundations/datacomp. Prompts: src/templates/iwildcam_template.py of
https://github.com/mlfoundations/wise-ft.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from modelsoups.data.wilds import tables
from modelsoups.data.wilds.spec import SPLITS, Entry, Spec

METADATA, CATEGORIES = "metadata.csv", "categories.csv"
NO_LABEL = 99_999  # y of the categories without images
CLASSES = 182


def classes(folder: Path) -> list[str]:
    """Return the class names, by label; ValueError if a label below the largest has none."""
    found: dict[int, str] = {}
    for row in tables.rows(folder / CATEGORIES, ("y", "name")):
        label = tables.number_of(row, "y")
        if label == NO_LABEL:
            continue
        if found.setdefault(label, row.values["name"]) != row.values["name"]:
            raise ValueError(f"{row.where}: label {label} has two names; restore the official file")
    missing = next((label for label in range(max(found, default=0) + 1) if label not in found), None)
    if missing is not None:
        raise ValueError(f"{folder / CATEGORIES} has no name for label {missing}; restore the official file")
    return [found[label] for label in sorted(found)]


def entries(folder: Path) -> Iterator[Entry]:
    """Yield the rows of the table, with the names of their images."""
    known = len(classes(folder))
    for row in tables.rows(folder / METADATA, ("split", "y", "filename")):
        split, label, name = row.values["split"], tables.number_of(row, "y"), row.values["filename"]
        if split not in SPLITS:
            raise ValueError(f"{row.where}: split is {split[:30]!r}, expected one of {', '.join(SPLITS)}")
        if label >= known:
            raise ValueError(f"{row.where}: label {label} is not among the {known} classes of {CATEGORIES}")
        if PurePosixPath(name).name != name or name.startswith("."):
            raise ValueError(f"{row.where}: {name[:60]!r} is not the name of a file in train/; restore the file")
        yield Entry(split, name, label, -1, row.line)


IWILDCAM = Spec(
    key="iwildcam",
    title="iWildCam",
    folders=("iwildcam_v2.0", "iwildcam"),
    tables=(METADATA, CATEGORIES),
    images="train",  # of all splits
    counts={"train": 129_809, "id_val": 7_314, "val": 14_961, "id_test": 8_154, "test": 42_791},
    templates=("a photo of {}.", "{} in the wild."),
    groups=(),
    classes=classes,
    entries=entries,
    number_of_classes=CLASSES,
)
