"""Finds images that are in two data sets or in two classes, by the hashes of the files' content."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from modelsoups.data.shards import ShardSet


class Seen(NamedTuple):
    """One image: hash of its file, class, and for messages its location (path, or tar and key)."""

    content: str
    class_name: str
    where: str


def in_set(folder: Path) -> list[Seen]:
    """Return the images of a set made from class folders, whose keys are hashes of the files."""
    dataset = ShardSet(folder)
    classes = dataset.classes
    if dataset.projection is not None:
        classes = [classes[index] for index in dataset.projection["indices"]]
    labels = dataset.labels_N.tolist()
    keys = [str(key).partition("-")[0] for key in dataset.keys_N]
    return [Seen(keys[i], classes[labels[i]], dataset.where(i)) for i in range(len(dataset))]


def refuse(roles: Sequence[str], found: Mapping[str, Sequence[Seen]]) -> None:
    """Raise ValueError if an image is in two classes of a set, or in two of the sets in `roles`."""
    for name, images in found.items():
        first: dict[str, Seen] = {}
        pairs = [(first.setdefault(image.content, image), image) for image in images]
        both = [(one, other) for one, other in pairs if one.class_name != other.class_name]
        if both:
            said = f"{both[0][0].where} and {both[0][1].where} are the same image in two classes"
            raise ValueError(f"{said}, one of {len(both):,} such images in {name}; keep each in its true class only")
    for one, other in combinations(roles, 2):
        both = shared(found[one], found[other])
        if both:
            said = f"{both[0][0].where} and {both[0][1].where} are the same image, one of {len(both):,}"
            reason = "soups must be trained, chosen and tested on different images"
            raise ValueError(f"{said} that {one} and {other} share; {reason}: remove them from one set")


def notes(known: Sequence[str], found: Mapping[str, Sequence[Seen]]) -> Iterator[str]:
    """Yield a message for each two data sets that share images.

    known: the sets for training and for choosing. If one of them shares images, the message warns
    that accuracies on these images are too high.
    """
    for one, other in combinations(found, 2):
        both = shared(found[one], found[other])
        if both:
            places = f"{both[0][0].where} and {both[0][1].where}"
            looks = "; accuracies on these images are too high" if one in known else ""
            yield f"{other} shares {len(both):,} images with {one}, such as {places}{looks}"


def shared(one: Sequence[Seen], other: Sequence[Seen]) -> list[tuple[Seen, Seen]]:
    """Return (image in `one`, image in `other`) for each image of `other` that is also in `one`."""
    first: dict[str, Seen] = {}
    for image in one:
        first.setdefault(image.content, image)
    return [(first[image.content], image) for image in other if image.content in first]
