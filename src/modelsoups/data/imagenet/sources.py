"""Finds the original files of each data set, and lists the images of ImageNet's train and val.

train and val may be the ILSVRC2012 tars, class folders (val also without), Hugging Face's parquet
files, or the WebDataset shards of timm/imagenet-1k-wds. Other test sets are a folder or a tar. All test
sets may also be as CLIP_benchmark and DataComp have them (see wds.py).
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelsoups.data.imagenet import metadata, parquet, tars, wds
from modelsoups.data.imagenet.listing import IMAGE_SUFFIXES, Found, Listing, is_image, original_name

ORIGINALS = {  # layout -> names of the tar, WebDataset shards, parquet files, folder
    "train": ("ILSVRC2012_img_train.tar", "imagenet1k-train-*.tar", "train-*.parquet", "train"),
    "val": ("ILSVRC2012_img_val.tar", "imagenet1k-validation-*.tar", "validation-*.parquet", "val"),
}
SHARDS = {"train": 1024, "val": 64}  # numbers of shards in timm/imagenet-1k-wds
WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Source:
    """The original files of a data set: a tar, a folder, or several shards or parquet files."""

    form: str
    paths: tuple[Path, ...]

    def __str__(self) -> str:
        more = f" and {len(self.paths) - 1:,} more" if len(self.paths) > 1 else ""
        return f"{self.form} {self.paths[0]}{more}"

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.paths)


@dataclass(frozen=True)
class Part:
    """A file, a folder, or a tar inside a tar, with images of a data set; one worker reads it."""

    layout: str
    form: str
    path: Path
    start: int = 0  # of a tar inside path
    size: int | None = None  # of a tar inside path
    wnid: str | None = None  # the class of all images, if known
    copies: Path | None = None  # the folder for the images of a parquet file

    def __str__(self) -> str:
        return f"{self.path} ({self.wnid})" if self.wnid else str(self.path)


def find(name: str, root: str | None, given: str | None) -> Source | str:
    """Find a set's files in `given` (data.sources.<name>), or else in `root` (data.root).

    Returns a sentence that says what is missing if `root` has none. Raises ValueError if `given`
    has none, or if a path does not exist.
    """
    spec = metadata.SETS[name]
    original = spec.layout in ORIGINALS
    key = f"data.sources.{metadata.source_key(name)}"
    place = given or root
    if place is None:
        return "neither data.root nor data.sources gives the location of its files"
    base = Path(place).expanduser()
    if not base.exists():
        raise ValueError(f"{key if given else 'data.root'}={place} does not exist")
    candidates = _originals(spec.layout, base, bool(given)) if original else _trees(name, base)
    if spec.layout == "hard":
        candidates = _hard([base / folder for folder in spec.folders] + ([base] if given else []))
    if found := next(candidates, None):
        return found
    if folder := next(wds.find(name, base, bool(given)), None):
        return Source(wds.FORM, (folder,))
    if given and not original and spec.source is None:
        return Source("folder" if base.is_dir() else "tar", (base,))
    wanted = [
        *(ORIGINALS.get(spec.layout) or [f"{spec.folders[0]}/"]),
        *([f"wds_{spec.wds}_test/"] if spec.wds else []),
    ]
    reason = f"{base} has no {' or '.join(wanted)}"
    if given:
        raise ValueError(f"{key}: {reason}")
    return f"{reason} (if its files are elsewhere, set {key}=...)"


def _originals(layout: str, base: Path, given: bool) -> Iterator[Source]:
    """Yield files or folders under `base` with the images of train or val, preferred ones first."""
    tar, shards, rows, folder = ORIGINALS[layout]
    if base.is_file():
        yield Source("tar", (base,))
        return
    # imagenet/ is the layout of the authors' datasets.md.
    places = [base, base / folder, base / "data", base / "imagenet", base / "ILSVRC" / "Data" / "CLS-LOC"]
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
    return any(is_image(p.name) or (WNID.fullmatch(p.name) and p.is_dir()) for p in folder.iterdir())


def _trees(name: str, base: Path) -> Iterator[Source]:
    for folder in metadata.SETS[name].folders:
        if (base / folder).is_dir():
            yield Source("folder", (base / folder,))
        if (base / f"{folder}.tar").is_file():
            yield Source("tar", (base / f"{folder}.tar",))


def _hard(places: list[Path]) -> Iterator[Source]:
    """Yield the parquet files of ImageNet-Hard in these folders, also in their folder data/."""
    for folder in (below for place in places for below in (place, place / "data")):
        if paths := sorted(folder.glob("validation-*.parquet")):
            yield Source("parquet", tuple(paths))


def parts(layout: str, source: Source, copies: Path, complete: bool) -> list[Part]:
    """Return the tars, folders or shards of train or val; ValueError for wrong or missing files."""
    if complete and len(missing := missing_files(layout, source)):
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ValueError(f"{source.paths[0].parent}: {len(missing):,} files are missing: {shown}; add them")
    if layout == "train" and source.form == "tar":
        return [_class_tar(source.paths[0], member) for member in tars.members(source.paths[0])]
    if source.form == "folder":
        return _class_folders(layout, source.paths[0])
    return [Part(layout, source.form, path, copies=copies) for path in source.paths]


def missing_files(layout: str, source: Source) -> list[str]:
    """Return the names of missing shards or parquet files, found by gaps in the numbering."""
    numbered = re.fullmatch(r"(.*-)(\d+)((?:-of-(\d{5})\.parquet)|\.tar)", source.paths[0].name)
    if source.form not in ("parquet", "webdataset") or numbered is None:
        return []
    front, number, back, total = numbered.groups()
    numbers = range(int(total) if total else SHARDS[layout])
    names = {path.name for path in source.paths}
    return [n for i in numbers if (n := f"{front}{i:0{len(number)}d}{back}") not in names]


def _class_tar(path: Path, member: tars.Member) -> Part:
    wnid = member.name.removeprefix("./").removesuffix(".tar")
    if wnid not in metadata.class_of():
        expected = "the tar of a class (nXXXXXXXX.tar); download ILSVRC2012_img_train.tar again"
        raise ValueError(f"{path}: member {member.name} is not {expected}")
    return Part("train", "tar", path, member.offset, member.size, wnid)


def _class_folders(layout: str, root: Path) -> list[Part]:
    """Return each class folder as a Part; for val, or if there are none, also `root` itself."""
    found = []
    for folder in sorted(filter(Path.is_dir, root.iterdir())):
        if folder.name.startswith((".", "__")):
            continue
        if folder.name not in metadata.class_of():
            raise ValueError(f"{folder} is not an ImageNet-1k class (nXXXXXXXX); move it away")
        found.append(Part(layout, "folder", folder, wnid=folder.name))
    return found if found and layout == "train" else [*found, Part(layout, "folder", root)]


def list_part(part: Part) -> Listing:
    """List the images of one part; raise ValueError if an image has a wrong name or label."""
    if part.form == "parquet":
        assert part.copies is not None
        return parquet.copy_out(part.path, part.copies, functools.partial(_key_and_label, part))
    listers = {"webdataset": _shard_images, "folder": _folder_images, "tar": _tar_images}
    return Listing.of(listers[part.form](part))


def _key_and_label(part: Part, name: str, label: int | None = None) -> tuple[str, int]:
    """Return an image's key and label by its name; ValueError if folder or `label` contradicts."""
    where = f"{part.path}: {name}"
    key = original_name(name)
    if key is None or key.startswith("ILSVRC") == (part.layout == "train"):
        if part.layout == "train":
            raise ValueError(f"{where} is not named nXXXXXXXX_N; restore the original name")
        expected = "it is not named ILSVRC2012_val_XXXXXXXX, as validation images are"
        raise ValueError(f"{where} has no label: {expected}; restore the original names")
    if part.layout == "train":
        wnid = key.partition("_")[0]
        truth = metadata.class_of().get(wnid, -1)
    else:
        number = int(key[-8:])
        truth = metadata.val_labels()[number - 1] if 1 <= number <= 50_000 else -1
        wnid = metadata.wnids()[truth]
    if truth < 0:
        raise ValueError(f"{where} does not belong to ImageNet-1k; move it elsewhere")
    if part.wnid not in (None, wnid):
        raise ValueError(f"{where} is of class {wnid}, but in the folder or tar {part.wnid}; move it to {wnid}")
    if label not in (None, truth):
        raise ValueError(f"{where} has label {label}, but class {wnid} has label {truth} by sorted wnids; correct it")
    return key, truth


def _folder_images(part: Part) -> Iterator[Found]:
    for path in sorted(part.path.iterdir()):
        if is_image(path.name):
            key, label = _key_and_label(part, path.name)
            yield Found(key, label, str(part.path), path.name, 0, path.stat().st_size)
        elif part.wnid and path.is_dir() and not path.name.startswith("."):
            raise ValueError(f"{path} is a folder inside a class folder; expected only images")


def _tar_images(part: Part) -> Iterator[Found]:
    for member in tars.members(part.path, part.start, part.size):
        if is_image(member.name):
            key, label = _key_and_label(part, member.name)
            yield Found(key, label, str(part.path), "", member.offset, member.size)


def _shard_images(part: Part) -> Iterator[Found]:
    for member, number in wds.labelled(part.path, sorted(IMAGE_SUFFIXES)):
        key, label = _key_and_label(part, member.name, number)
        yield Found(key, label, str(part.path), "", member.offset, member.size)
