"""Small trees laid out exactly as DTD, Food-101, SUN397, Stanford Cars and CIFAR-100 are.

`python tests/transfer_files.py FOLDER` writes them all.
"""

import json
import sys
from pathlib import Path

import cifar_files
import numpy as np
import scipy.io
from PIL import Image

TEXTURES = ["banded", "polka-dotted", "zigzagged"]
DISHES = ["apple_pie", "hot_dog", "waffles"]
SCENES = ["/a/abbey", "/a/apartment_building/outdoor", "/y/yard"]
MAKES = ["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012", "smart fortwo Convertible 2012"]
HUNDRED = ["apple", "aquarium_fish", "lawn_mower", "worm"]
EACH = 4  # training images of a class


def photo(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (36, 44, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=90)


def dtd(root):
    folder = root / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    for s, split in enumerate(("train", "val", "test")):
        names = [f"{c}/{c}_{100 * s + n:04d}.jpg" for c in TEXTURES for n in range(EACH)]
        (folder / "labels" / f"{split}1.txt").write_text("".join(f"{name}\n" for name in names))
        for n, name in enumerate(names):
            photo(folder / "images" / name, 1000 + 100 * s + n)
    return root


def food101(root):
    folder = root / "food-101"
    (folder / "meta").mkdir(parents=True)
    for s, split in enumerate(("train", "test")):
        listed = {c: [f"{c}/{100_000 * (k + 1) + 50 * s + n}" for n in range(EACH)] for k, c in enumerate(DISHES)}
        (folder / "meta" / f"{split}.json").write_text(json.dumps(listed))
        for n, name in enumerate(name for names in listed.values() for name in names):
            photo(folder / "images" / f"{name}.jpg", 2000 + 100 * s + n)
    return root


def sun397(root):
    folder = root / "SUN397"
    folder.mkdir(parents=True)
    (folder / "ClassName.txt").write_text("".join(f"{c}\n" for c in SCENES))
    for s, split in enumerate(("Training_01", "Testing_01")):
        names = [f"{c}/sun_a{'bcdef'[n]}{'xy'[s]}{k}.jpg" for k, c in enumerate(SCENES) for n in range(EACH)]
        (folder / f"{split}.txt").write_text("".join(f"{name}\r\n" for name in names))
        for n, name in enumerate(names):
            photo(folder / name[1:], 3000 + 100 * s + n)
    photo(folder / "y" / "yard" / "sun_of_no_partition.jpg", 3999)
    return root


def annotations(rows):
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
    return np.array([(0, 0, 9, 9, label, name) for label, name in rows], dtype=[(name, "O") for name in fields])


def cars(root):
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = np.array(MAKES, dtype="O")
    scipy.io.savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    files = {"train": folder / "devkit/cars_train_annos.mat", "test": folder / "cars_test_annos_withlabels.mat"}
    for s, (split, path) in enumerate(files.items()):
        rows = [(n % 3 + 1, f"{n + 1:05d}.jpg") for n in range(3 * EACH)]
        scipy.io.savemat(path, {"annotations": annotations(rows)})
        for n, (_, name) in enumerate(rows):
            photo(folder / f"cars_{split}" / name, 4000 + 100 * s + n)
    return root


def cifar100(root, names=HUNDRED, labels=None):
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True, exist_ok=True)
    for s, split in enumerate(("train", "test")):
        given = labels or list(range(len(HUNDRED))) * EACH
        pixels, fine = cifar_files.pictures(50 + s, given)
        rows = pixels.transpose(0, 3, 1, 2).reshape(len(fine), -1)
        entries = {"fine_labels": cifar_files.listed(map(cifar_files.integer, fine)), "data": cifar_files.array(rows)}
        (folder / split).write_bytes(cifar_files.pickled(entries))
    meta = {"fine_label_names": cifar_files.listed(map(cifar_files.text, names))}
    (folder / "meta").write_bytes(cifar_files.pickled(meta))
    return root


ALL = {"dtd": dtd, "food101": food101, "sun397": sun397, "cars": cars, "cifar100": cifar100}


def write(root):
    for make in ALL.values():
        make(root)
    return root


if __name__ == "__main__":
    write(Path(sys.argv[1]))
