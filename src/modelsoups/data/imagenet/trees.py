"""Listing the test sets: a folder of images for each class, unpacked or in a tar.

The folders of ImageNet-V2 are class numbers (not to be sorted as strings), those of ImageNet-R, -A
and -Sketch are wnids, those of ObjectNet are its 313 object names, of which 113 are scored.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from modelsoups.data.imagenet import metadata, projections, tars
from modelsoups.data.imagenet.listing import Found, Listing, is_image, key_of
from modelsoups.data.imagenet.sources import Source

UNSCORED = -1  # the label of a folder whose images are left out
IGNORED = ("__MACOSX",)


class TreeImage(NamedTuple):
    """An image: its folders from the root down, its base name, and its place as in listing.Found."""

    folders: tuple[str, ...]
    base: str
    file: str
    name: str
    offset: int
    size: int


def list_tree(name: str, source: Source) -> Listing:
    """The images of a test set with their labels.

    Raises ValueError naming a folder that does not belong to the set, or a second copy of the set
    inside the first, which has doubled the counts of ImageNet-Sketch before.
    """
    labels = folder_labels(name)
    path = source.paths[0]
    found: list[Found] = []
    top: tuple[str, ...] | None = None
    numbered = metadata.SETS[name].layout == "numbers"
    for image in _folder_images(path) if source.form == "folder" else _tar_images(path):
        folder = image.folders[-1] if image.folders else ""
        where = "/".join([str(path), *image.folders])
        label = labels.get(_number(folder) if numbered else folder)
        if label is None:
            title = metadata.SETS[name].title
            raise ValueError(f"{where}: not a class folder of {title}; {_expected(name)}")
        if top is None:
            top = image.folders[:-1]
        elif image.folders[:-1] != top:
            first = "/".join([str(path), *top])
            raise ValueError(f"{where}: a second tree of class folders besides {first}; remove it")
        if label != UNSCORED:
            prefix = _number(folder).zfill(4) if folder.isdigit() else folder
            key = key_of(prefix, image.base.rpartition(".")[0])
            found.append(Found(key, label, image.file, image.name, image.offset, image.size))
    if not found:
        title = metadata.SETS[name].title
        raise ValueError(f"{path} holds no images of {title}; {_expected(name)}")
    return Listing.of(found)


def folder_labels(name: str) -> dict[str, int]:
    """The label of each folder name; UNSCORED for ObjectNet's folders without an ImageNet class."""
    layout = metadata.SETS[name].layout
    if layout == "numbers":
        return {str(i): i for i in range(1000)}
    labels = {folder: i for i, folder in enumerate(projections.label_names(name))}
    if layout == "objectnet":
        return dict.fromkeys(projections.objectnet(), UNSCORED) | labels
    return labels


def _number(folder: str) -> str:
    return str(int(folder)) if folder.isdecimal() else folder


def _expected(name: str) -> str:
    names = list(folder_labels(name))
    return f"expected {len(names):,} folders, {names[0]} to {names[-1]}"


def _folder_images(root: Path, folders: tuple[str, ...] = ()) -> Iterator[TreeImage]:
    here = root.joinpath(*folders)
    for path in sorted(here.iterdir()):
        if path.is_dir():
            if not path.name.startswith(".") and path.name not in IGNORED:
                yield from _folder_images(root, (*folders, path.name))
        elif is_image(path.name):
            yield TreeImage(folders, path.name, str(here), path.name, 0, path.stat().st_size)


def _tar_images(tar: Path) -> Iterator[TreeImage]:
    for member in tars.members(tar):
        *folders, base = PurePosixPath(member.name).parts
        hidden = any(name.startswith(".") or name in IGNORED for name in folders)
        if is_image(base) and not hidden:
            yield TreeImage(tuple(folders), base, str(tar), "", member.offset, member.size)
