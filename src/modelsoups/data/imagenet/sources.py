"""Finding the files of a set, and the lists of their images, for every form that people have them in.

train and val: the ILSVRC2012 tars, a folder (torchvision's ImageFolder; val also flat), Hugging Face's parquet files,
or WebDataset shards named as timm/imagenet-1k-wds. Test sets: their folder as unpacked, or their tar as downloaded.
A source is cut into parts (a class, a tar, a parquet file) that are listed side by side.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsoups.data.imagenet import metadata, parquet, tars
from modelsoups.data.imagenet.listing import Found, Listing, is_image, original_name

FORMS = ("tar", "webdataset", "parquet", "folder")
ORIGINALS = {  # layout -> tar, WebDataset shards, parquet files, folder
    "train": ("ILSVRC2012_img_train.tar", "imagenet1k-train-*.tar", "train-*.parquet", "train"),
    "val": ("ILSVRC2012_img_val.tar", "imagenet1k-validation-*.tar", "validation-*.parquet", "val"),
}
SHARDS = {"train": 1024, "val": 64}  # of timm/imagenet-1k-wds
WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Source:
    """The files of a set: one tar or folder, or several shards."""

    form: str
    paths: tuple[Path, ...]

    def __str__(self) -> str:
        more = f" and {len(self.paths) - 1:,} more" if len(self.paths) > 1 else ""
        return f"{self.form} {self.paths[0]}{more}"

    @property
    def bytes(self) -> int:
        return sum(p.stat().st_size for p in self.paths)


@dataclass(frozen=True)
class Part:
    """A piece of a source, listed by one task: [start, start + size) of path where it lies inside a tar."""

    layout: str
    form: str
    path: Path
    start: int = 0
    size: int | None = None
    wnid: str | None = None  # of all its images, where the form says so
    spool: Path | None = None  # where a parquet file's images are copied to

    def __str__(self) -> str:
        return f"{self.path}" + (f" ({self.wnid})" if self.wnid else "")


def find(name: str, root: str | None, given: str | None) -> Source | str:
    """The source of a set under data.root, or at data.sources.<name>; a string says why there is none.

    Raises ValueError when the given place does not exist or holds no such set.
    """
    spec = metadata.SETS[name]
    place = given or root
    if place is None:
        return "neither data.root nor data.sources says where its files are"
    base = Path(place).expanduser()
    if not base.exists():
        raise ValueError(f"{f'data.sources.{name}' if given else 'data.root'}={place} does not exist")
    found = next(_originals(spec.layout, base, bool(given)) if spec.layout in ORIGINALS else _trees(name, base), None)
    if found is None and given and spec.layout not in ORIGINALS:
        return Source("folder" if base.is_dir() else "tar", (base,))
    if found is None:
        wanted = ORIGINALS.get(spec.layout) or [f"{spec.folders[0]}/"]
        reason = f"{base} has no {' or '.join(wanted)}"
        if given:
            raise ValueError(f"data.sources.{name}: {reason}")
        return f"{reason} (data.sources.{name}=... names another place)"
    return found


def _originals(layout: str, base: Path, given: bool) -> Iterator[Source]:
    """What there is of train or val, in the order of preference."""
    tar, shards, rows, folder = ORIGINALS[layout]
    if base.is_file():
        yield Source("tar", (base,))
        return
    places = [base, base / folder, base / "data", base / "ILSVRC" / "Data" / "CLS-LOC"]
    if layout == "val":
        places.append(base / "validation")
    for place in places:
        if (place / tar).is_file():
            yield Source("tar", (place / tar,))
        for form, pattern in (("webdataset", shards), ("parquet", rows)):
            if paths := sorted(place.glob(pattern)):
                yield Source(form, tuple(paths))
        if (place / folder).is_dir() and _has_images(place / folder):
            yield Source("folder", (place / folder,))
    if given and _has_images(base):
        yield Source("folder", (base,))


def _has_images(folder: Path) -> bool:
    """Whether it looks like a folder of classes, or of images."""
    return any(is_image(p.name) or (WNID.fullmatch(p.name) and p.is_dir()) for p in folder.iterdir())


def _trees(name: str, base: Path) -> Iterator[Source]:
    for folder in metadata.SETS[name].folders:
        if (base / folder).is_dir():
            yield Source("folder", (base / folder,))
        if (base / f"{folder}.tar").is_file():
            yield Source("tar", (base / f"{folder}.tar",))


def parts(layout: str, source: Source, spool: Path, complete: bool) -> list[Part]:
    """The pieces of train or val. complete: refuse a source whose file names say that files are missing."""
    if complete and len(missing := missing_files(layout, source)):
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ValueError(f"{source.paths[0].parent}: files are missing ({len(missing):,}): {shown}")
    if layout == "train" and source.form == "tar":
        return [_inner(source.paths[0], m) for m in tars.members(source.paths[0])]
    if source.form == "folder":
        return _class_folders(layout, source.paths[0])
    where = spool if source.form == "parquet" else None
    return [Part(layout, source.form, path, spool=where) for path in source.paths]


def missing_files(layout: str, source: Source) -> list[str]:
    """Names of shards that should be there by the numbers in the names of those that are."""
    names = {p.name for p in source.paths}
    first = source.paths[0].name
    if source.form == "parquet" and (match := re.fullmatch(r"(.*-)\d{5}(-of-(\d{5})\.parquet)", first)):
        wanted = [f"{match[1]}{i:05d}{match[2]}" for i in range(int(match[3]))]
    elif source.form == "webdataset" and (match := re.fullmatch(r"(.*-)(\d+)\.tar", first)):
        wanted = [f"{match[1]}{i:0{len(match[2])}d}.tar" for i in range(SHARDS[layout])]
    else:
        return []
    return [name for name in wanted if name not in names]


def _inner(path: Path, member: tars.Member) -> Part:
    wnid = member.name.removeprefix("./").removesuffix(".tar")
    if wnid not in metadata.class_of():
        raise ValueError(
            f"{path}: member {member.name} is not a class's tar (nXXXXXXXX.tar); expected ILSVRC2012_img_train.tar"
        )
    return Part("train", "tar", path, member.offset, member.size, wnid)


def _class_folders(layout: str, root: Path) -> list[Part]:
    """One part a class folder; for val, images may also lie flat."""
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))
    for folder in folders:
        if folder.name not in metadata.class_of():
            raise ValueError(f"{folder}: not one of the 1000 classes; expected folders nXXXXXXXX of ImageNet-1k")
    found = [Part(layout, "folder", folder, wnid=folder.name) for folder in folders]
    return found if folders and layout == "train" else [*found, Part(layout, "folder", root)]


def list_part(part: Part) -> Listing:
    """The images of one part, each checked for its name and label; see `_original`."""
    if part.form == "parquet":
        assert part.spool is not None
        return parquet.copy_out(part.path, part.spool, lambda name, label: _original(part, name, label))
    lister = _shard_images if part.form == "webdataset" else _folder_images if part.form == "folder" else _tar_images
    return Listing.of(lister(part))


def _original(part: Part, name: str, label: int | None) -> tuple[str, int]:
    """Key and label of an image of train or val; ValueError when it has neither, or two that differ."""
    key = original_name(name)
    if key is None or key.startswith("ILSVRC") == (part.layout == "train"):
        if part.layout == "val":
            raise ValueError(
                f"{part.path}: {name} has no label: it is not named ILSVRC2012_val_XXXXXXXX, as the validation "
                "images are; restore the original names"
            )
        raise ValueError(f"{part.path}: {name} is not named nXXXXXXXX_N, as the training images are")
    if part.layout == "train":
        wnid = key.partition("_")[0]
        truth = metadata.class_of().get(wnid, -1)
    else:
        number = int(key[-8:])
        truth = metadata.val_labels()[number - 1] if 1 <= number <= 50_000 else -1
        wnid = metadata.wnids()[truth]
    if truth < 0:
        raise ValueError(f"{part.path}: {name} does not belong to ImageNet-1k")
    if part.wnid not in (None, wnid):
        raise ValueError(f"{part.path}: {name} is of class {wnid}, but lies in {part.wnid}; move it to its class")
    if label not in (None, truth):
        raise ValueError(f"{part.path}: {name} has label {label}, but {wnid} is {truth} in the order of sorted wnids")
    return key, truth


def _folder_images(part: Part) -> Iterator[Found]:
    for path in sorted(part.path.iterdir()):
        if is_image(path.name):
            key, label = _original(part, path.name, None)
            yield Found(key, label, str(part.path), path.name, 0, path.stat().st_size)
        elif part.wnid and path.is_dir() and not path.name.startswith("."):
            raise ValueError(f"{path}: a folder inside a class folder; expected images only")


def _tar_images(part: Part) -> Iterator[Found]:
    for member in tars.members(part.path, part.start, part.size):
        if is_image(member.name):
            key, label = _original(part, member.name, None)
            yield Found(key, label, str(part.path), "", member.offset, member.size)


def _shard_images(part: Part) -> Iterator[Found]:
    """Images of a WebDataset shard: {key}.jpg beside {key}.cls."""
    images: dict[str, Any] = {}
    labels: dict[str, int] = {}
    with open(part.path, "rb") as file:
        for member in tars.members(part.path):
            base, _, extension = member.name.rpartition(".")
            if is_image(member.name):
                images[base] = member
            elif extension == "cls":
                file.seek(member.offset)
                labels[base] = _integer(part.path, member.name, file.read(member.size))
    if lost := sorted(set(images) ^ set(labels)):
        state = "has no .cls with its label" if lost[0] in images else "has a label but no image"
        raise ValueError(f"{part.path}: {lost[0]} {state}")
    for base, member in images.items():
        key, label = _original(part, member.name, labels[base])
        yield Found(key, label, str(part.path), "", member.offset, member.size)


def _integer(path: Path, name: str, text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{path}: {name} holds {text[:20]!r}, not a class number") from None
