"""Lists the images of WebDataset tars: timm's of ImageNet, and the evaluation sets of CLIP_benchmark and DataComp.

The evaluation sets are folders wds_<task>_test/ (DataComp) or wds_<task>/ (CLIP_benchmark) with

    classnames.txt   test/nshards.txt   test/0.tar   test/1.tar ...

A tar has s0000000.webp (or .jpg, .png) and s0000000.cls, the label among the set's own classes: 200 of ImageNet-R
and -A, 113 of ObjectNet, in the order of their folders' names (clip_benchmark/webdataset_builder.py and
clip_benchmark/datasets in https://github.com/LAION-AI/CLIP_benchmark; download_evalsets.py in
https://github.com/mlfoundations/datacomp). Images of ImageNet's val are in the order of torchvision's ImageFolder, by
class and then by name, which gives their names, by which ReaL and multilabel find them.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from modelsoups.data.imagenet import metadata, projections, tars
from modelsoups.data.imagenet.listing import IMAGE_SUFFIXES, Found, Listing, key_of

FORM = "wds"
SUFFIXES = (*sorted(IMAGE_SUFFIXES), ".webp")
LABEL_BYTES = 20  # at most, of a .cls file
KEY = re.compile(r"s(\d{7,8})")
AGAIN = "download it again"


def labelled(path: Path, suffixes: Sequence[str] = SUFFIXES) -> Iterator[tuple[tars.Member, int]]:
    """Yield each image of a WebDataset tar, with the label in its .cls file.

    Raises ValueError if a label is no number, if an image and its label are not both there, or if one is there twice.
    """
    images: dict[str, tars.Member] = {}
    labels: dict[str, int] = {}
    with open(path, "rb") as file:
        for member in tars.members(path):
            base, _, extension = member.name.rpartition(".")
            is_image = f".{extension.lower()}" in suffixes and not member.name.rpartition("/")[2].startswith(".")
            if (is_image and base in images) or (extension == "cls" and base in labels):
                raise ValueError(f"{path}: {base} occurs twice, also as {member.name}; {AGAIN}")
            if is_image:
                images[base] = member
            elif extension == "cls":
                file.seek(member.offset)
                text = file.read(min(member.size, LABEL_BYTES + 1))
                if not text.strip().isdigit() or member.size > LABEL_BYTES:
                    where = f"{path}: {member.name}"
                    raise ValueError(f"{where} contains {text[:20]!r}, not a class number; download this shard again")
                labels[base] = int(text)
    if lost := sorted(set(images) ^ set(labels)):
        state = "has an image but no label" if lost[0] in images else "has a label but no image"
        raise ValueError(f"{path}: {lost[0]} {state}; {AGAIN}")
    for base, member in images.items():
        yield member, labels[base]


def find(name: str, base: Path, given: bool) -> Iterator[Path]:
    """Yield the folders of a set's tars under `base`. given: `base` itself may be one (data.sources)."""
    task = metadata.SETS[name].wds
    roots = [base / f"wds_{task}_test", base / f"wds_{task}"] if task else []
    for root in [base, *roots] if given else roots:
        for folder in (root / "test", root):
            if (folder / "nshards.txt").is_file():
                yield folder


def list_folder(name: str, folder: Path) -> Listing:
    """Return all images of a test set with their labels.

    Raises ValueError if tars or classes are missing, a label is outside the set's classes, or it is another task.
    """
    classes = projections.label_names(name)
    _check_task(name, folder, len(classes))
    names = _names_of_val() if metadata.SETS[name].layout == "val" else None
    found: list[Found] = []
    for tar in _tars(folder):
        for member, label in labelled(tar):
            where = f"{tar}: {member.name}"
            if label >= len(classes):
                has = f"{metadata.SETS[name].title} has the classes 0 to {len(classes) - 1}"
                raise ValueError(f"{where} has label {label}, but {has}; is it another set?")
            stem = member.name.rpartition(".")[0]
            key = key_of(classes[label], stem) if names is None else _name_of(names, stem, label, where)
            found.append(Found(key, label, str(tar), "", member.offset, member.size))
    if not found:
        raise ValueError(f"{folder} contains no images of {metadata.SETS[name].title}; {AGAIN}")
    return Listing.of(found)


def _check_task(name: str, folder: Path, classes: int) -> None:
    for place in (folder, folder.parent):
        kind, names = place / "dataset_type.txt", place / "classnames.txt"
        if kind.is_file() and (task := _text(kind).strip().lower()) != "classification":
            raise ValueError(f"{kind} says {task[:30]!r}, not classification; choose the folder of another set")
        if names.is_file() and (count := len(_text(names).split("\n")) - _text(names).endswith("\n")) != classes:
            has = f"{metadata.SETS[name].title} has {classes:,}"
            raise ValueError(f"{names} has {count:,} classes, but {has}; is it the folder of another set?")


def _tars(folder: Path) -> list[Path]:
    """Return the tars that nshards.txt counts; ValueError if others are there, or some of them are not."""
    text = _text(folder / "nshards.txt").strip()
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise ValueError(f"{folder / 'nshards.txt'} contains {text[:20]!r}, not the number of tars; {AGAIN}")
    expected = [folder / f"{number}.tar" for number in range(int(text))]
    if absent := [path for path in expected if not path.is_file()]:
        raise ValueError(f"{absent[0]} is missing, one of {len(absent)} of the {text} in nshards.txt; {AGAIN}")
    if more := sorted(set(folder.glob("*.tar")) - set(expected)):
        raise ValueError(f"{more[0]} is not among the {text} tars of nshards.txt; correct one of them")
    return expected


def _text(path: Path) -> str:
    if path.stat().st_size > 2**20:
        raise ValueError(f"{path} is larger than 1 MiB; {AGAIN}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8 (byte {error.start:,}); {AGAIN}") from error


def _names_of_val() -> list[tuple[int, str]]:
    """Return (label, name) of all images of ImageNet's val, sorted by both."""
    labels = metadata.val_labels()
    return sorted((label, f"ILSVRC2012_val_{number:08d}") for number, label in enumerate(labels, 1))


def _name_of(names: Sequence[tuple[int, str]], stem: str, label: int, where: str) -> str:
    """Return the name of an image of val by its number; ValueError if its label contradicts."""
    match = KEY.fullmatch(stem)
    if match is None or int(match[1]) >= len(names):
        raise ValueError(f"{where} is not named s0000000 to s{len(names) - 1:07d}, as CLIP_benchmark names images")
    truth, name = names[int(match[1])]
    if label != truth:
        order = "CLIP_benchmark sorts val by class and name"
        raise ValueError(f"{where} has label {label}, expected {truth}: {order}; use ImageNet's own files")
    return name
