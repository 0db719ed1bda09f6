"""Reads the rows of a text file with columns: TSV, CSV or JSON Lines, in UTF-8.

Lines end with \\n or \\r\\n; other characters that some programs take for line ends stay in the
text. Quotation marks enclose columns in .csv files only (`csv.QUOTE_NONE` otherwise): GLUE's TSVs
have single marks in their sentences, and the usual reading of quotes swallows rows.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from modelsoups.config.data import TextDataConfig
from modelsoups.data import walk

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
QUOTED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')  # a column in marks, with doubled marks inside
Cells = tuple[int, list[str]]  # line number, the texts between the separators


class Row(NamedTuple):
    """One row of a table. where: file and line, for messages. values: by column."""

    where: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """The columns and rows of one file. class_names: names of a column's integers 0, 1, ..."""

    path: Path
    columns: Sequence[str]
    rows: Iterable[Row]
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)


def read(path: Path, text: TextDataConfig) -> Table:
    """Return a file's table; ValueError, with file and line, where the file is not well-formed."""
    suffix, lines = path.suffix.lower(), _lines(path)
    if not lines:
        raise ValueError(f"{path} is empty; put one example on each line")
    if suffix in (".jsonl", ".json"):
        rows = [_object(path, number, line) for number, line in enumerate(lines, 1)]
        return Table(path, tuple(rows[0].values), rows)
    quoted = suffix == ".csv" if text.quotes is None else text.quotes
    delimiter = "," if suffix == ".csv" else "\t"
    cells = list(_quoted(path, lines, delimiter) if quoted else _split(path, lines, delimiter))
    if text.quotes is None and not quoted:
        _refuse_quoted(path, cells)
    names = [name.strip() for name in cells[0][1]]
    is_headerless = bool(text.columns) and not _is_header(names, text)
    columns = text.columns if is_headerless else names
    if twice := [name for name in columns if name and columns.count(name) > 1]:
        raise ValueError(f"{path} has two columns called {twice[0]}; rename one")
    return Table(path, columns, _rows(path, columns, cells if is_headerless else cells[1:], quoted))


def _is_header(names: Sequence[str], text: TextDataConfig) -> bool:
    """Return whether the first line of a file names a column of each text."""
    return all(any(name in names for name in possible) for possible in text.fields.values())


def _rows(path: Path, columns: Sequence[str], cells: Iterable[Cells], quoted: bool) -> Iterator[Row]:
    for number, row in cells:
        if len(row) != len(columns):
            marks = "" if quoted else ", or set data.text.quotes=true if quotation marks enclose columns"
            expected = f"expected {len(columns)} ({', '.join(columns)})"
            way_out = f"remove separators from its texts{marks}"
            raise ValueError(f"{path} line {number} has {len(row)} columns; {expected}: {way_out}")
        yield Row(f"{path} line {number}", dict(zip(columns, row, strict=True)))


def _split(path: Path, lines: Sequence[str], delimiter: str) -> Iterator[Cells]:
    for number, line in enumerate(lines, 1):
        _refuse_blank(path, number, line)
        yield number, line.split(delimiter)


def _refuse_quoted(path: Path, cells: Iterable[Cells]) -> None:
    """Raise ValueError if a column looks quoted, as pandas writes it; no column of GLUE's does."""
    for number, row in cells:
        if any(QUOTED.fullmatch(cell) for cell in row):
            way_out = "set data.text.quotes=true if so, or false if the marks belong to the text"
            raise ValueError(f"{path} line {number}: quotation marks seem to enclose a column; {way_out}")


def _quoted(path: Path, lines: Sequence[str], delimiter: str) -> Iterator[Cells]:
    """Yield (line number, columns); quotation marks may enclose a column, and line ends in it."""
    text = io.StringIO("\n".join(lines) + "\n", newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    number = 1
    try:
        for row in reader:
            _refuse_blank(path, number, "".join(row))
            yield number, row
            number = reader.line_num + 1
    except csv.Error as error:
        way_out = "close and double its quotation marks, or set data.text.quotes=false if they belong to the texts"
        raise ValueError(f"{path} line {number}: wrong quotation marks ({error}); {way_out}") from error


def _object(path: Path, number: int, line: str) -> Row:
    _refuse_blank(path, number, line)
    where = f"{path} line {number}"
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        way_out = "write each example on one line"
        raise ValueError(f"{where} is not valid JSON ({error}); {way_out}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{where} is not a JSON object; write each example as one object on one line")
    return Row(where, values)


def _refuse_blank(path: Path, number: int, line: str) -> None:
    if not line.strip():
        raise ValueError(f"{path} line {number} is empty; remove it")


def _lines(path: Path) -> list[str]:
    """Return a UTF-8 file's lines without line ends, and without empty lines at its end."""
    content = walk.content(path, "a text file")
    if content.startswith(UTF_16):
        raise ValueError(f"{path} is in UTF-16; convert it: iconv -f UTF-16 -t UTF-8 {path.name} > new")
    start = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
    try:
        text = content[start:].decode()
    except UnicodeDecodeError as error:
        at = start + error.start
        number = content.count(b"\n", 0, at) + 1
        way_out = f"if it is in Latin-1, convert it: iconv -f LATIN1 -t UTF-8 {path.name} > new"
        raise ValueError(
            f"{path} line {number} is not in UTF-8 (byte 0x{content[at]:02X} at {at:,}); {way_out}"
        ) from error
    if (at := text.find("\0")) >= 0:
        number = text.count("\n", 0, at) + 1
        way_out = f"copy the file again or, if it is in UTF-16: iconv -f UTF-16 -t UTF-8 {path.name} > new"
        raise ValueError(f"{path} line {number} contains a NUL byte; {way_out}")
    if "\n" not in text and "\r" in text:
        raise ValueError(f"{path} has lines that end with \\r only; convert it: tr '\\r' '\\n' < {path.name} > new")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines
