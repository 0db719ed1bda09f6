"""Lists the images of test sets that have one folder per class, unpacked or in a tar.

Folders are named by number (ImageNet-V2), wnid (ImageNet-R, -A and -Sketch) or object (ObjectNet).
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from modelsoups.data.imagenet import metadata, projections, tars
from modelsoups.data.imagenet.listing import Found, Listing, is_image, key_of
from modelsoups.data.imagenet.sources import Source

UNSCORED = -1  # the label of a folder whose images are left out
IGNORED = ("__MACOSX",)
# An image's folders from the root down, its base name, and file, name, offset and size as in Found.
TreeImage = tuple[tuple[str, ...], str, tuple[str, str, int, int]]


def list_tree(name: str, source: Source) -> Listing:
    """Return all images of a test set with their labels.

    Raises ValueError if a folder is not a class, or if the class folders occur in two places.
    """
    labels, title, path = folder_labels(name), metadata.SETS[name].title, source.paths[0]
    names = list(labels)
    expected = f"expected {len(names):,} folders, {names[0]} to {names[-1]}"
    found: list[Found] = []
    top: tuple[str, ...] | None = None
    numbered = metadata.SETS[name].layout == "numbers"
    for folders, base, place in _folder_images(path) if source.form == "folder" else _tar_images(path):
        folder = folders[-1] if folders else ""
        where = "/".join([str(path), *folders])
        label = labels.get(_number(folder) if numbered else folder)
        if label is None:
            raise ValueError(f"{where} is not a class folder of {title}; {expected}")
        if top is None:
            top = folders[:-1]
        elif folders[:-1] != top:
            beside = "/".join([str(path), *top])
            way_out = "move one of the two elsewhere"
            raise ValueError(f"{where}: class folders are also in {beside}; {way_out}")
        if label != UNSCORED:
            prefix = _number(folder).zfill(4) if folder.isdigit() else folder
            found.append(Found(key_of(prefix, base.rpartition(".")[0]), label, *place))
    if not found:
        raise ValueError(f"{path} contains no images of {title}; {expected}")
    return Listing.of(found)


def folder_labels(name: str) -> dict[str, int]:
    """Return each class folder's label; -1 for ObjectNet's folders without an ImageNet class."""
    layout = metadata.SETS[name].layout
    if layout == "numbers":
        return {str(i): i for i in range(1000)}
    labels = {folder: i for i, folder in enumerate(projections.label_names(name))}
    if layout == "objectnet":
        return dict.fromkeys(projections.objectnet(), UNSCORED) | labels
    return labels


def _number(folder: str) -> str:
    return str(int(folder)) if folder.isdecimal() else folder


def _folder_images(root: Path, folders: tuple[str, ...] = ()) -> Iterator[TreeImage]:
    here = root.joinpath(*folders)
    for path in sorted(here.iterdir()):
        if path.is_dir():
            if not path.name.startswith(".") and path.name not in IGNORED:
                yield from _folder_images(root, (*folders, path.name))
        elif is_image(path.name):
            yield folders, path.name, (str(here), path.name, 0, path.stat().st_size)


def _tar_images(tar: Path) -> Iterator[TreeImage]:
    for member in tars.members(tar):
        *folders, base = PurePosixPath(member.name).parts
        hidden = any(name.startswith(".") or name in IGNORED for name in folders)
        if is_image(base) and not hidden:
            yield tuple(folders), base, (str(tar), "", member.offset, member.size)
