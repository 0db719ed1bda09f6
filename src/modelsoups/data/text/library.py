"""Prepares text data sets: GLUE's, or tables of one's own (data.library=text).

The hold-out is a part of train (data.choose_on=heldout), unless it has a file of its own, or all
examples of the test set again (data.choose_on=validation).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelsoups.config.data import DataConfig
from modelsoups.data import roles
from modelsoups.data.text import examples, overlaps, sets, sources, splits
from modelsoups.data.text.examples import Example
from modelsoups.data.text.sets import TextSet

Json = dict[str, Any]


def names(data: DataConfig) -> list[str]:
    """Return the data sets' names; ValueError if a set is named twice or has no files."""
    wanted = roles.names_of(data)
    if not 0 < data.holdout_fraction < 1:
        raise ValueError(f"data.holdout_fraction={data.holdout_fraction}: expected a number above 0 and below 1")
    examples.check(data.text)
    places: dict[Path, str] = {}
    for name in wanted:
        if name != data.holdout or _has_holdout(data):
            place = sources.find(data, name).place
            if places.setdefault(place, name) != name:
                both = f"{places[place]} and {name}"
                raise ValueError(f"{place} is the file of both {both}; name another with data.text.files.{name}=...")
    return wanted


def inputs(data: DataConfig, protocol: str, name: str) -> Json:
    """Return what identifies a data set: a hash of its examples, and how they were chosen."""
    return _inputs(data, name, _Reader(data).examples(name))


def facts(data: DataConfig, protocol: str, name: str) -> Json:
    """Return a data set's metadata for its manifest.json: name, role, classes, prompt, ..."""
    return {
        "name": name,
        "title": f"{data.name} {name}" if name in roles.main_sets(data) else name,
        "role": roles.role_of(data, name),
        "classes": examples.options(data.text),
        "prompt": data.text.prompt,
        "templates": [],
        "projection": None,
    }


def make(data: DataConfig, protocol: str, todo: Sequence[str], workers: int) -> dict[str, int]:
    """Check the texts of all sets and write the sets in `todo`; return example counts by name.

    Raises ValueError for a wrong line, a wrong number of examples, a missing class and, unless
    data.text.official is set, a text in two sets or with two labels.
    """
    reader = _Reader(data)
    wanted = names(data)
    if data.check_counts:
        for name in wanted:
            reader.check_count(name)
    found = {name: reader.examples(name) for name in wanted}
    for name in (data.train, data.holdout, data.test):
        _check_classes(data, name, found[name])
    if not data.text.official:
        again = data.choose_on == "validation"
        overlaps.refuse([data.train, *([] if again else [data.holdout]), data.test], found)
    made = {}
    for name in todo:
        known = facts(data, protocol, name) | _repeats(data, name, found) | {"source": str(reader.place(name))}
        for line in known["notes"]:
            print(f"prepare: {name}: {line.partition(': ')[0]}")  # without the keys
        made[name] = sets.write_set(Path(data.dir) / name, found[name], _inputs(data, name, found[name]), known)
    return made


def opened(folder: Path) -> TextSet:
    """Open a prepared data set."""
    return TextSet(folder)


def _inputs(data: DataConfig, name: str, found: Sequence[Example]) -> Json:
    digest = hashlib.sha256(sets.lines(found).encode()).hexdigest()[:16]
    made: Json = {"library": "text", "set": name, "examples": digest}
    made |= {"classes": examples.options(data.text), "prompt": data.text.prompt}
    if name in (data.train, data.holdout):
        made["choose_on"] = data.choose_on
        made["limit"] = data.limit if name == data.train else None
        made["holdout_fraction"] = data.holdout_fraction if _is_split(data) else None
    return made


class _Reader:
    """Reads each source of a configuration once."""

    def __init__(self, data: DataConfig) -> None:
        self.data = data
        self._read: dict[str, list[Example]] = {}

    def source(self, name: str) -> list[Example]:
        """Return all examples of the files of a set."""
        if name not in self._read:
            self._read[name] = examples.read(sources.find(self.data, name), self.data.text)
        return self._read[name]

    def examples(self, name: str) -> list[Example]:
        """Return the examples of a set: those of its files, or of a split."""
        data = self.data
        if name == data.holdout and data.choose_on == "validation":
            return self.source(data.test)
        if name not in (data.train, data.holdout) or not _is_split(data):
            found = self.source(name)
        else:
            rest, held = splits.holdout(self.source(data.train), data.holdout_fraction)
            found = rest if name == data.train else held
        return splits.first(found, data.limit) if name == data.train else found

    def place(self, name: str) -> Path:
        """Return the file or folder that the examples of a set come from."""
        data = self.data
        again = data.test if data.choose_on == "validation" else data.train
        own = name != data.holdout or _has_holdout(data)
        return sources.find(data, name if own else again).place

    def check_count(self, name: str) -> None:
        """Raise ValueError if a set's files do not contain the official number of examples."""
        same = sources.VALIDATION if name in sources.VALIDATION else (name,)
        official = next((self.data.text.examples[n] for n in same if n in self.data.text.examples), None)
        if official is None or (name == self.data.holdout and not _has_holdout(self.data)):
            return
        count, place = len(self.source(name)), sources.find(self.data, name).place
        if count != official:
            apart = f"{abs(count - official):,} {'more' if count > official else 'fewer'}"
            way_out = "download it again, or set data.check_counts=false to use it anyway"
            raise ValueError(f"{place} has {count:,} examples, {apart} than the official {official:,}; {way_out}")


def _has_holdout(data: DataConfig) -> bool:
    """Return whether the hold-out is read from files of its own."""
    return data.choose_on == "heldout" and sources.exists(data, data.holdout)


def _is_split(data: DataConfig) -> bool:
    """Return whether the hold-out is a part of train."""
    return data.choose_on == "heldout" and not sources.exists(data, data.holdout)


def _check_classes(data: DataConfig, name: str, found: Sequence[Example]) -> None:
    labels = {example.label for example in found}
    for number, option in enumerate(examples.options(data.text)):
        if number not in labels:
            way_out = "add some, correct its labels, or change data.holdout_fraction or data.limit"
            raise ValueError(f"{name} has no example of {option!r} among its {len(found):,}; {way_out}")


def _repeats(data: DataConfig, name: str, found: overlaps.Sets) -> Json:
    """Return facts on repeated texts: notes, overlaps, whether a key in two sets is an error."""
    again = name == data.holdout and data.choose_on == "validation"
    others = [data.train] if again else [data.train, data.holdout]
    if data.choose_on == "validation" and name == data.test:
        others = [data.train]
    in_others = overlaps.between(name, [] if name == data.train else others, found)
    notes = overlaps.notes(name, found, in_others)
    if again:
        notes.insert(0, f"soups are chosen on the examples of {data.test}, on which they are reported too")
    return {"notes": notes, "overlaps": in_others, "by_content": not (again or data.text.official)}
