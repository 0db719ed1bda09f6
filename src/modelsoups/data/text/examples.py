"""Converts the rows of tables to examples: texts by field, and a label, the index of an option."""

import hashlib
import json
import math
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from modelsoups.config.data import TextDataConfig
from modelsoups.data.text import columnar, tables
from modelsoups.data.text.sources import Source
from modelsoups.data.text.tables import Row, Table

NO_LABELS = "GLUE's test sets have no labels; evaluate on its validation set, data.test=validation"
MOST_SHOWN = 80  # characters of a wrong value in a message


class Example(NamedTuple):
    """A labelled example. content: hash of its texts. where: file and line or row, for messages."""

    content: str
    label: int
    fields: dict[str, str]
    where: str


def options(text: TextDataConfig) -> list[str]:
    """Return the texts of the options, in order; ValueError if there are fewer than two."""
    found = list(dict.fromkeys(text.labels.values()))
    if len(found) < 2:
        given = f"labels {dict(text.labels)}" if text.labels else "no labels"
        way_out = "give each label its text, such as {'1': positive, ...}"
        raise ValueError(f"data.text.labels has {given}; {way_out}")
    if not all(option.strip() == option and option for option in found):
        raise ValueError(f"data.text.labels={dict(text.labels)}: an option is empty, or has spaces around it")
    return found


def check(text: TextDataConfig) -> None:
    """Raise ValueError if the configuration's options, fields and prompt do not fit together."""
    options(text)
    if not text.fields or not all(text.fields.values()):
        way_out = "give each text its column, such as {sentence: [sentence]}"
        raise ValueError(f"data.text.fields names no columns; {way_out}")
    try:
        used = {name for _, name, _, _ in string.Formatter().parse(text.prompt) if name is not None}
    except ValueError as error:
        raise ValueError(
            f"data.text.prompt={text.prompt!r} is not a valid format ({error}); double its braces"
        ) from error
    if used != set(text.fields):
        wanted = ", ".join(f"{{{name}}}" for name in text.fields)
        raise ValueError(f"data.text.prompt={text.prompt!r} must contain {wanted}, and no other name in braces")


def read(source: Source, text: TextDataConfig) -> list[Example]:
    """Return a source's examples, in the order of its rows; ValueError names the wrong line."""
    classes = options(text)
    found: list[Example] = []
    for path in source.files:
        is_columnar = path.suffix.lower() in columnar.SUFFIXES
        found += _examples(columnar.read(path) if is_columnar else tables.read(path, text), text, classes)
    if not found:
        raise ValueError(f"{source.place} has no examples; add rows, or move it elsewhere")
    return found


def content_hash(fields: Mapping[str, str]) -> str:
    """Return the first 16 hex digits of the sha256 of an example's texts."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def _examples(table: Table, text: TextDataConfig, classes: Sequence[str]) -> Iterator[Example]:
    columns = {name: _column(table, possible, f"data.text.fields.{name}") for name, possible in text.fields.items()}
    label = _column(table, text.label, "data.text.label")
    names = table.class_names.get(label, ())
    for row in table.rows:
        fields = {name: _text(row, column) for name, column in columns.items()}
        option = _option(row, label, names, text)
        yield Example(content_hash(fields), classes.index(option), fields, row.where)


def _column(table: Table, possible: Sequence[str], key: str) -> str:
    """Return the only column with one of the possible names."""
    found = [name for name in possible if name in table.columns]
    if len(found) > 1:
        way_out = f"choose one with {key}=[{found[0]}]"
        raise ValueError(f"{table.path} has columns {found[0]} and {found[1]}; {way_out}")
    if not found:
        has = ", ".join(" ".join(name.split()) or "(no name)" for name in table.columns)
        reason = f"; {NO_LABELS}" if key == "data.text.label" else ""
        expected = " or ".join(possible)
        raise ValueError(f"{table.path} has columns {has}, but none is {expected} ({key}); set that key{reason}")
    return found[0]


def _text(row: Row, column: str) -> str:
    """Return a text without spaces at its ends; ValueError if it is empty or is no text."""
    if column not in row.values:
        raise ValueError(f"{row.where} has no {column}; add it, or remove the line")
    value = row.values[column]
    if not isinstance(value, str | None):
        way_out = "write it in quotation marks"
        raise ValueError(f"{row.where}: {column} is {_shown(value)}, which is not text; {way_out}")
    if value is None or not value.strip():
        raise ValueError(f"{row.where}: {column} is empty; fill it in, or remove the line")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{row.where}: {column} contains an incomplete character ({error}); correct it") from error
    if "\0" in value:
        raise ValueError(f"{row.where}: {column} contains a NUL character; remove it")
    return value.strip()


def _option(row: Row, column: str, names: Sequence[str], text: TextDataConfig) -> str:
    """Return the text of a row's label; ValueError if the label is not in data.text.labels."""
    value = row.values.get(column)
    label = _label(value)
    if label in ("-1", ""):
        shown = "is -1" if label else "is missing"
        raise ValueError(f"{row.where}: {column} {shown}; {NO_LABELS}")
    if names and label.isdecimal():
        if int(label) >= len(names):
            raise ValueError(f"{row.where}: {column} is {label}, but the file names only {len(names)} classes")
        if names[int(label)] in text.labels:
            return text.labels[names[int(label)]]
    if label not in text.labels:
        shown = f"{label} ({names[int(label)]})" if names and label.isdecimal() else _shown(value)
        known = ", ".join(text.labels)
        expected = f"one of {known} (data.text.labels)"
        raise ValueError(f"{row.where}: {column} is {shown}; expected {expected}")
    return text.labels[label]


def _shown(value: Any) -> str:
    return repr(value)[:MOST_SHOWN]


def _label(value: Any) -> str:
    """Return a label as text: 1 and 1.0 are "1", true is "true", and a missing one is ""."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
