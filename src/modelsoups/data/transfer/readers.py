"""Reads DTD, Food-101, SUN397, Stanford Cars and CIFAR-100 from their official files (appendix E).

The first four are read by torchvision's classes, which also give the order of the labels. They are
asked for the path of each image, not for its pixels, so that its bytes are kept. torchvision's
CIFAR100 would unpickle the official files, which can run code; here `data.cifar.pickles` reads them.

Class names are those of the files, with spaces for underscores and slashes (those of Cars as they are). They are
those of data/prompts.md of https://github.com/openai/CLIP (at d05afc4): compared with the official files' names in
sun397_labels.txt, dtd_key_attributes.txt, food-101_classes.txt and cars196.py of tensorflow-datasets 4.9.10, in the
same order for DTD and Cars; Food-101's are sorted, and SUN397's stand in the order of ClassName.txt. A file with other
names is refused (data.check_counts). Prompts are those of CLIP's page, but for CIFAR-100 ImageNet's 80, as in
appendix E. Numbers of images: Cimpoi et al. 2014, Bossard et al. 2014, Xiao et al. 2010, Krause et al. 2013,
Krizhevsky 2009.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from modelsoups.data.cifar import pickles
from modelsoups.data.cifar.sources import SIDE
from modelsoups.data.imagenet import metadata
from modelsoups.data.transfer.spec import Listed, Picture, Spec

CARS = "stanford_cars"  # torchvision's name of the folder
LISTS = {"train": "Training_01.txt", "test": "Testing_01.txt"}  # of SUN397; torchvision's class has no splits
HUNDRED = "cifar-100-python"


def named(name: str) -> str:
    """Return the name of a class for prompts, such as "apartment building outdoor"."""
    return name.replace("_", " ").replace("/", " ")


def _pictures(dataset: Any, root: Path, name: Callable[[str], str] = named) -> Listed:
    """Return the classes and images of one of torchvision's data sets, whose loader returns paths."""
    paths = (dataset[i] for i in range(len(dataset)))
    found = [Picture(Path(path).relative_to(root).as_posix(), int(label), Path(path)) for path, label in paths]
    return [name(c) for c in dataset.classes], found


# torchvision is imported where it is used: it takes seconds


def _dtd(root: Path, split: str) -> Listed:
    from torchvision.datasets import DTD

    return _pictures(DTD(root, split, loader=Path), root)


def _food(root: Path, split: str) -> Listed:
    from torchvision.datasets import Food101

    return _pictures(Food101(root, split, loader=Path), root)


def _cars(root: Path, split: str) -> Listed:
    from torchvision.datasets import StanfordCars

    return _pictures(StanfordCars(root, split, loader=Path), root, str)


def _sun(root: Path, split: str) -> Listed:
    """Return the images that the first of the ten official partitions puts into a split."""
    from torchvision.datasets import SUN397

    classes, every = _pictures(SUN397(root, loader=Path), root)
    path, by_name = _partition(root, split), {picture.name: picture for picture in every}
    wanted = [f"SUN397{line.strip()}" for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if absent := next((name for name in wanted if name not in by_name), None):
        raise ValueError(f"{root / absent} is missing, which {path.name} names")
    return classes, [by_name[name] for name in wanted]


def _partition(root: Path, split: str) -> Path:
    """Return the list of a split, which Partitions.zip has: in SUN397/, in Partitions/ or in data.root."""
    places = [root / "SUN397" / LISTS[split], root / "Partitions" / LISTS[split], root / LISTS[split]]
    return next(filter(Path.exists, places), places[0])


def _hundred(root: Path, split: str) -> Listed:
    path, meta = root / HUNDRED / split, root / HUNDRED / "meta"
    batch, names = pickles.read(path, "100"), pickles.read(meta, "100").get("fine_label_names")
    rows_ND, labels = batch.get("data"), batch.get("fine_labels")
    if not isinstance(names, list) or not all(type(name) is str for name in names):
        raise ValueError(f"{meta} lacks the names of classes (fine_label_names)")
    if not isinstance(rows_ND, np.ndarray) or rows_ND.shape[1] != 3 * SIDE * SIDE:
        raise ValueError(f"{path} lacks data of {3 * SIDE * SIDE} bytes an image")
    if not isinstance(labels, list) or len(labels) != len(rows_ND) or not all(type(n) is int for n in labels):
        raise ValueError(f"{path} lacks a label (fine_labels) for each of its {len(rows_ND):,} images")
    pixels_NHWC = rows_ND.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    pairs = enumerate(zip(pixels_NHWC, labels, strict=True))
    found = [Picture(f"{HUNDRED}/{split}/{i:05d}", label, pixels_HWC) for i, (pixels_HWC, label) in pairs]
    return list(map(named, names)), found


def _below(folder: str, *files: str) -> Callable[[Path, str], list[Path]]:
    """Return the function `tables` of a Spec; "{}" in a file's name stands for the split."""
    return lambda root, split: [root / folder / file.format(split) for file in files]


def _tables_of_cars(root: Path, split: str) -> list[Path]:
    devkit = root / CARS / "devkit"
    annotations = {"train": devkit / "cars_train_annos.mat", "test": root / CARS / "cars_test_annos_withlabels.mat"}
    return [devkit / "cars_meta.mat", annotations[split]]


OF_TEXTURES = [
    f"a photo of {a} {{}} {what}." for a in ("a", "the") for what in ("texture", "pattern", "thing", "object")
]
OF_CARS = [
    *("a photo of a {}.", "a photo of the {}.", "a photo of my {}.", "i love my {}!"),
    *(f"a photo of my {kind} {{}}." for kind in ("dirty", "clean", "new", "old")),
]
SPECS = (
    Spec(
        key="dtd",
        title="DTD",
        archive="dtd-r1.0.1.tar.gz of https://www.robots.ox.ac.uk/~vgg/data/dtd/, in dtd/",
        images={"train": 1_880, "val": 1_880, "test": 1_880},  # the first of ten partitions
        classes=47,
        names="a63a5d4efba346bb",
        templates=lambda: OF_TEXTURES,
        tables=_below("dtd/dtd/labels", "{}1.txt"),
        read=_dtd,
    ),
    Spec(
        key="food101",
        title="Food-101",
        archive="food-101.tar.gz of https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        images={"train": 75_750, "test": 25_250},
        classes=101,
        names="fb0f44fa00745a18",
        templates=lambda: ["a photo of {}, a type of food."],
        tables=_below("food-101/meta", "{}.json"),
        read=_food,
    ),
    Spec(
        key="sun397",
        title="SUN397",
        archive="SUN397.tar.gz and, in SUN397/, Partitions.zip of https://vision.princeton.edu/projects/2010/SUN/",
        images={"train": 19_850, "test": 19_850},
        classes=397,
        names="f4527f9ccc228b70",
        templates=lambda: ["a photo of a {}.", "a photo of the {}."],
        tables=lambda root, split: [root / "SUN397/ClassName.txt", _partition(root, split)],
        read=_sun,
    ),
    Spec(
        key="cars",
        title="Stanford Cars",
        archive="the archives of Stanford Cars as stanford_cars/devkit/, cars_train/, cars_test/ and"
        " cars_test_annos_withlabels.mat",
        images={"train": 8_144, "test": 8_041},
        classes=196,
        names="383be694bbd95ad7",
        templates=lambda: OF_CARS,
        tables=_tables_of_cars,
        read=_cars,
    ),
    Spec(
        key="cifar100",
        title="CIFAR-100",
        archive="cifar-100-python.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html",
        images={"train": 50_000, "test": 10_000},
        classes=100,
        names="acf08d36f2d77c23",
        templates=functools.cache(metadata.templates),
        tables=_below(HUNDRED, "meta", "{}"),
        read=_hundred,
    ),
)
