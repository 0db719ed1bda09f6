"""Finds a text data set's files, as GLUE/MRPC/train.tsv or mrpc/train-00000-of-00001.parquet.

A set is found by its name in one of these forms; two forms at once are an error:

    train.tsv, .csv, .jsonl, .json, .parquet or .arrow      a file
    train-00000-of-00002.parquet, ...                       parts, also in the folder data/
    train/*.parquet or train/*.arrow                        parts; arrow: as datasets.save_to_disk writes them

If no file is called validation, then dev, valid or val are looked for, and vice versa.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelsoups.config.data import DataConfig
from modelsoups.data import walk
from modelsoups.disk import storage

SUFFIXES = (".tsv", ".csv", ".jsonl", ".json", ".parquet", ".arrow")
NAMED = (*SUFFIXES, ".txt")  # of files in data.text.files; .txt is read as .tsv
VALIDATION = ("validation", "dev", "valid", "val")
PART = re.compile(r"(?P<name>.+?)-(?P<number>\d+)(-of-(?P<total>\d+))?(-[0-9a-f]{8,})?")
MOST_NAMES = 8  # of files in a message


@dataclass(frozen=True)
class Source:
    """The files of one set, in order; `place` is what messages call them, such as a folder."""

    place: Path
    files: tuple[Path, ...]


def find(data: DataConfig, name: str) -> Source:
    """Return the files of the set `name`; ValueError if there are none, or more than one form."""
    folder = root(data)
    if name in data.text.files:
        return _named(folder, name, data.text.files[name])
    found = _found(folder, name)
    if not found:
        looked = f"no {name}.tsv, .csv, .jsonl, .parquet, parts {name}-*.parquet, or folder {name}/ of such files"
        if data.text.folders and folder == Path(str(data.root)):
            looked = f"no folder {data.text.folders[0]}/, and {looked}"
        way_out = f"put it there, or name it with data.text.files.{name}=..."
        raise ValueError(f"{folder} (data.root) has {looked}; it contains {_inside(folder)}: {way_out}")
    if len(found) > 1:
        places = " and ".join(str(source.place) for source in found[:2])
        raise ValueError(f"{places} may both be the set {name}; choose one with data.text.files.{name}=...")
    return found[0]


def exists(data: DataConfig, name: str) -> bool:
    """Return whether the set `name` has files of its own."""
    return name in data.text.files or bool(_found(root(data), name))


def root(data: DataConfig) -> Path:
    """Return the folder of the sets: one of data.text.folders in data.root, or data.root itself."""
    inside = f"{data.text.folders[0]}/ with " if data.text.folders else ""
    way_out = f"set it to the folder that contains {inside}train.tsv or the like"
    if data.root is None:
        raise ValueError(f"data.root is null; {way_out}")
    above = Path(data.root)
    if not above.is_dir():
        raise ValueError(f"data.root={above} is not a folder; {way_out}")
    found: list[Path] = []
    for folder in (above / name for name in data.text.folders):
        if folder.is_dir() and not any(folder.samefile(other) for other in found):
            found.append(folder)  # one folder may have two names where case is ignored
    if len(found) > 1:
        way_out = "set data.text.folders to one of them"
        raise ValueError(f"{found[0]} and {found[1]} may both be the data set; {way_out}")
    return found[0] if found else above


def _named(folder: Path, name: str, path: str) -> Source:
    """Return the source that data.text.files gives: a file, or a folder or pattern of parts."""
    key, place = f"data.text.files.{name}={path}", folder / Path(path).expanduser()
    if place.is_dir():
        found = _parts_inside(place)
        if found is None:
            raise ValueError(f"{key}: {place} contains no .parquet or .arrow files, but {_inside(place)}")
        return found
    if place.exists():
        if place.suffix.lower() not in NAMED:
            raise ValueError(f"{key}: unknown kind of file; expected one of {', '.join(NAMED)}")
        return Source(place, (place,))
    above = Path(place.anchor) if place.is_absolute() else Path()
    parts = sorted(above.glob(str(place.relative_to(above)))) if re.search(r"[*?\[]", path) else []
    if not parts:
        raise ValueError(f"{key}: {place} does not exist; {place.parent} contains {_inside(place.parent)}")
    if kinds := sorted({part.suffix for part in parts} - {".parquet", ".arrow"}):
        raise ValueError(f"{key}: only .parquet and .arrow files can be parts of a set, not {kinds[0] or parts[0]}")
    return Source(place, _whole(place, parts))


def _found(folder: Path, name: str) -> list[Source]:
    others = [other for other in VALIDATION if name in VALIDATION and other != name]
    return _forms(folder, [name]) or _forms(folder, others)


def _forms(folder: Path, names: Sequence[str]) -> list[Source]:
    """Return the sources in a folder that may be the set with one of these names."""
    found = []
    for name in names:
        files = [path for path in _files(folder) if path.stem == name and path.suffix.lower() in SUFFIXES]
        found += [Source(path, (path,)) for path in files]
        for place in (folder, folder / "data"):
            parts = [path for path in _files(place) if _is_part(path, name)]
            if parts:
                found.append(Source(place / f"{name}-*.parquet", _whole(place, parts)))
        if inside := _parts_inside(folder / name):
            found.append(inside)
    return found


def _parts_inside(folder: Path) -> Source | None:
    """Return the arrow or parquet files of a folder as one source; None if it has none."""
    arrow = [path for path in _files(folder) if path.suffix == ".arrow"]
    parquet = [path for path in _files(folder) if path.suffix == ".parquet"]
    if arrow and parquet:
        way_out = "move those of one kind elsewhere"
        raise ValueError(f"{folder} contains .arrow and .parquet files; {way_out}")
    if not arrow and not parquet:
        return None
    return Source(folder, _whole(folder, _saved(folder, arrow) if arrow else parquet))


def _saved(folder: Path, arrow: list[Path]) -> list[Path]:
    """Return the arrow files of a folder of datasets.save_to_disk that its state.json lists."""
    state = folder / "state.json"
    if not state.exists():
        return arrow
    content = storage.read_object(state)
    if content.get("_indices_data_files") or content.get("_indices_files"):
        way_out = "call flatten_indices() on the data set and save it again"
        raise ValueError(f"{state}: this data set is a selection of rows of another, which is not supported; {way_out}")
    names = [entry.get("filename") for entry in content.get("_data_files", []) if isinstance(entry, dict)]
    listed = [folder / name for name in names if isinstance(name, str)]
    missing = [path for path in listed if path not in arrow]
    if missing:
        raise ValueError(f"{missing[0]} is missing, although {state} lists it; copy the folder again")
    return listed or arrow


def _is_part(path: Path, name: str) -> bool:
    match = PART.fullmatch(path.stem)
    return path.suffix == ".parquet" and match is not None and match["name"] == name


def _whole(place: Path, parts: Sequence[Path]) -> tuple[Path, ...]:
    """Return parts in the order of their numbers; ValueError if "-of-" counts a missing part."""
    matches = [PART.fullmatch(path.stem) for path in parts]
    numbered = [match for match in matches if match and match["total"]]
    if not numbered:
        return tuple(sorted(parts))
    totals = {int(match["total"]) for match in numbered}
    if len(totals) > 1 or len(numbered) < len(parts):
        raise ValueError(f"{place}: {parts[0].name} and {parts[-1].name} are not parts of one set; move one elsewhere")
    numbers = [int(match["number"]) for match in numbered]
    total = totals.pop()
    if missing := sorted(set(range(total)) - set(numbers)):
        there = f"beside {parts[0].name}"
        raise ValueError(f"{place}: part {missing[0]:05d} of {total:05d} is missing {there}; download it again")
    if len(numbers) > total:
        raise ValueError(f"{place}: {len(numbers)} files for {total} parts, first {parts[0].name}; keep one of each")
    return tuple(path for _, path in sorted(zip(numbers, parts, strict=True)))


def _files(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if not path.is_dir()]


def _entries(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(path for path in folder.iterdir() if not walk.is_ignored(path.name))


def _inside(folder: Path) -> str:
    """Return the names of what is in a folder, for a message."""
    names = [path.name + ("/" if path.is_dir() else "") for path in _entries(folder)]
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more if names else "nothing"
