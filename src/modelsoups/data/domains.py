"""Prepares data with a folder per domain and in it one per class, such as PACS/photo/dog/1.jpg.

So DomainBed lays out PACS, VLCS, OfficeHome, TerraIncognita and DomainNet. Images of data.domains are
divided into training set, hold-out and test set; the other domains, data.shifts, are evaluated whole.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from modelsoups.config.data import DataConfig
from modelsoups.data import roles, walk
from modelsoups.data.folders import TEMPLATES, Labelled, LabelledImage, write_sets
from modelsoups.data.shards import Json
from modelsoups.disk import storage


def names(data: DataConfig) -> list[str]:
    """Return the data sets' names; ValueError if a domain is missing, named twice or not named."""
    if not data.domains:
        raise ValueError("data.domains is empty; name the folders to train on, such as [art_painting,cartoon,photo]")
    for key in ("holdout_fraction", "test_fraction"):
        if not 0 < getattr(data, key) < 1:
            raise ValueError(f"data.{key}={getattr(data, key)}: expected a number above 0 and below 1")
    if data.holdout_fraction + data.test_fraction >= 1:
        raise ValueError("data.holdout_fraction and data.test_fraction leave no training image; lower one of them")
    own = roles.main_sets(data)
    others = [*data.shifts, *data.extra]
    if twice := [name for name, count in Counter([*own, *data.domains, *others]).items() if count > 1]:
        keys = "data.domains, data.shifts, data.extra, data.train, data.holdout and data.test"
        raise ValueError(f"{twice[0]} is named twice in {keys}; a domain is trained on or evaluated, not both")
    for domain in (*data.domains, *others):
        if not (_root(data) / domain).is_dir():
            present = ", ".join(path.name for path in sorted(_root(data).glob("*/"))) or "no folder"
            raise ValueError(f"{_root(data) / domain} is missing; data.root has {present}")
    return [*own, *others]


def inputs(data: DataConfig, protocol: str, name: str) -> Json:
    """Return what identifies a data set: classes, a hash of its domains' file names and sizes, the split."""
    found = [(f"{domain}/{image.class_name}/{image.name}", image.path.stat().st_size)
             for domain in _domains(data, name) for image in _images(data, domain)]  # fmt: skip
    made: Json = {"library": "domains", "set": name, "files": storage.fingerprint(found), "classes": _classes(data)}
    if name in roles.main_sets(data):
        made["fractions"] = [data.holdout_fraction, data.test_fraction]
    return made | ({"limit": data.limit} if name == data.train else {})


def facts(data: DataConfig, protocol: str, name: str) -> Json:
    """Return a data set's metadata for its manifest.json: name, role, classes, projection, ..."""
    classes, part = _classes(data), name in roles.main_sets(data)
    missing = [] if part else sorted(set(classes) - set(walk.class_folders(_root(data) / name)))
    indices = [i for i, class_name in enumerate(classes) if class_name not in missing]
    return {
        "name": name,
        "title": f"{data.name} {name}" if part else name,
        "role": roles.role_of(data, name),
        "classes": classes,
        "templates": TEMPLATES,
        "projection": {"kind": "subset", "indices": indices} if missing else None,
    }


def make(data: DataConfig, protocol: str, todo: Sequence[str], workers: int) -> dict[str, int]:
    """Check the images of the sets in `todo` and write their shards; return image counts by name.

    Raises ValueError for a file that cannot be decoded, and for an image that is in two classes.
    """
    parts = _split(data) if set(todo) & set(roles.main_sets(data)) else {}
    sets = []
    for name in todo:
        images = tuple(parts[name] if name in parts else _evaluated(data, name))
        about = inputs(data, protocol, name), facts(data, protocol, name)
        sets.append(Labelled(name, images, *about, groups=_domains(data, name)))
    return write_sets(data, names(data), sets, workers)


def _split(data: DataConfig) -> Mapping[str, list[LabelledImage]]:
    """Return the images of training set, hold-out and test set.

    Of each class of each domain, those with the smallest hashes of content are held out, the next ones
    tested on. Copies of one image stay together.
    """
    found: dict[str, list[LabelledImage]] = defaultdict(list)
    rank: dict[Path, str] = {}
    for domain in data.domains:
        by_class: dict[int, list[LabelledImage]] = defaultdict(list)
        for image in _images(data, domain):
            rank[image.path] = hashlib.sha256(walk.content(image.path)).hexdigest()
            by_class[image.label].append(image)
        for images in by_class.values():
            images.sort(key=lambda image: (rank[image.path], image.name))
            ends = [round(f * len(images)) for f in (data.holdout_fraction, data.holdout_fraction + data.test_fraction)]
            bounds = [rank[images[end].path] if end < len(images) else "~" for end in ends]
            for image in images:
                part = data.holdout if rank[image.path] < bounds[0] else data.test
                found[part if rank[image.path] < bounds[1] else data.train].append(image)
    for name in roles.main_sets(data):
        lacking = sorted(set(range(len(_classes(data)))) - {image.label for image in found[name]})
        if lacking:
            way_out = "add images, or change data.holdout_fraction and data.test_fraction"
            raise ValueError(f"{name} has no image of class {_classes(data)[lacking[0]]}; {way_out}")
    kept = sorted(found[data.train], key=lambda image: rank[image.path][::-1])[: data.limit]
    found[data.train] = [image for image in found[data.train] if image in set(kept)]
    return {name: sorted(found[name], key=lambda image: image.label) for name in roles.main_sets(data)}


def _evaluated(data: DataConfig, domain: str) -> list[LabelledImage]:
    return sorted(_images(data, domain), key=lambda image: image.label)


def _images(data: DataConfig, domain: str) -> list[LabelledImage]:
    """Return the images of a domain; ValueError if it has a class that the first domain lacks, or the reverse."""
    folders, classes = walk.class_folders(_root(data) / domain), _classes(data)
    for class_name in folders:
        if class_name not in classes:
            raise ValueError(
                f"{_root(data) / domain / class_name}: {data.domains[0]} has no such class; rename or move it"
            )
    if domain in data.domains and (missing := sorted(set(classes) - set(folders))):
        raise ValueError(f"{_root(data) / domain}: no folder for class {missing[0]}; add one with its images")
    group = data.domains.index(domain) if domain in data.domains else 0
    return [
        LabelledImage(class_name, classes.index(class_name), below, path, group)
        for class_name, places in folders.items()
        for below, path in walk.images(places)
    ]


def _domains(data: DataConfig, name: str) -> list[str]:
    return list(data.domains) if name in roles.main_sets(data) else [name]


def _classes(data: DataConfig) -> list[str]:
    return list(walk.class_folders(_root(data) / data.domains[0]))


def _root(data: DataConfig) -> Path:
    if data.root is None:
        raise ValueError(f"data.root is null; set it to the folder with {', '.join([*data.domains, *data.shifts])}")
    return Path(data.root)
