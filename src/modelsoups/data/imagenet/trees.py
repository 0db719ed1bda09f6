"""The test sets: folders of images, one a class, as they unpack or still in their tar.

ImageNet-V2's folders are class numbers (not to be sorted as strings), those of R, A and Sketch are wnids, ObjectNet's
are its own 313 object names, of which 113 are scored.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from modelsoups.data.imagenet import metadata, tars
from modelsoups.data.imagenet.listing import Found, Listing, is_image, key_of
from modelsoups.data.imagenet.sources import Source

SKIP = -1  # the label of a folder that belongs to the set but is not scored
IGNORED = ("__MACOSX",)


class Image(NamedTuple):
    """A file of a tree: the folders it lies in, its own name, and its place (see listing.Found)."""

    folders: tuple[str, ...]
    base: str
    file: str
    name: str
    offset: int
    size: int


def list_tree(name: str, source: Source) -> Listing:
    """The images of a test set with their labels.

    Raises ValueError naming the folder that does not belong to the set, or a second copy nested in the first (a
    known accident: it doubled counts of ImageNet-Sketch).
    """
    labels = folder_labels(name)
    path = source.paths[0]
    found: list[Found] = []
    top: tuple[str, ...] | None = None
    for image in _folder_images(path) if source.form == "folder" else _tar_images(path):
        folder = image.folders[-1] if image.folders else ""
        where = "/".join([str(path), *image.folders])
        label = labels.get(_number(folder) if metadata.SETS[name].layout == "numbers" else folder)
        if label is None:
            raise ValueError(f"{where}: not a class folder of {metadata.SETS[name].title}; {_expected(name)}")
        if top is None:
            top = image.folders[:-1]
        elif image.folders[:-1] != top:
            raise ValueError(f"{where}: a second tree of class folders beside {'/'.join([str(path), *top])}; remove it")
        if label != SKIP:
            key = key_of(_number(folder).zfill(4) if folder.isdigit() else folder, image.base.rpartition(".")[0])
            found.append(Found(key, label, image.file, image.name, image.offset, image.size))
    if not found:
        raise ValueError(f"{path} holds no images of {metadata.SETS[name].title}; {_expected(name)}")
    return Listing.of(found)


def folder_labels(name: str) -> dict[str, int]:
    """The label of each folder name; SKIP for ObjectNet's folders without an ImageNet class."""
    layout = metadata.SETS[name].layout
    if layout == "numbers":
        return {str(i): i for i in range(1000)}
    labels = {folder: i for i, folder in enumerate(metadata.label_names(name))}
    return {folder: labels.get(folder, SKIP) for folder in metadata.objectnet()} if layout == "objectnet" else labels


def _number(folder: str) -> str:
    return str(int(folder)) if folder.isdecimal() else folder


def _expected(name: str) -> str:
    names = list(folder_labels(name))
    return f"expected {len(names):,} folders, {names[0]} to {names[-1]}"


def _folder_images(root: Path, folders: tuple[str, ...] = ()) -> Iterator[Image]:
    here = root.joinpath(*folders)
    for path in sorted(here.iterdir()):
        if path.is_dir():
            if not path.name.startswith(".") and path.name not in IGNORED:
                yield from _folder_images(root, (*folders, path.name))
        elif is_image(path.name):
            yield Image(folders, path.name, str(here), path.name, 0, path.stat().st_size)


def _tar_images(tar: Path) -> Iterator[Image]:
    for member in tars.members(tar):
        *folders, base = [part for part in member.name.split("/") if part != "."]
        if is_image(base) and not any(f.startswith(".") or f in IGNORED for f in folders):
            yield Image(tuple(folders), base, str(tar), "", member.offset, member.size)
