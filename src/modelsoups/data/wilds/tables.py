"""Reads the CSV tables of WILDS row by row, without holding them in memory."""

import csv
import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from modelsoups.disk import storage

MOST_BYTES, MOST_ROWS = 2**30, 1_000_000  # of a table; FMoW's has about half of both


class Row(NamedTuple):
    """One row of a table: its number from 0, its line in the file, its values by column."""

    path: Path
    number: int
    line: int
    values: dict[str, str]

    @property
    def where(self) -> str:
        """The file and line, for messages."""
        return f"{self.path} line {self.line}"


def rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a CSV file that has at least these columns.

    Raises ValueError, with file and line, if the file is missing, is not in UTF-8, or lacks a column or value.
    """
    _check_file(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            head = next(reader, [])
            if lost := [column for column in columns if column not in head]:
                raise ValueError(f"{path} has no column {lost[0]}; restore the official file")
            for number, values in enumerate(reader):
                row = Row(path, number, reader.line_num, dict(zip(head, values, strict=False)))
                if len(values) != len(head):
                    wrong = f"has {len(values)} columns, not {len(head)}"
                    raise ValueError(f"{row.where} {wrong}; restore the official file")
                if number == MOST_ROWS:
                    raise ValueError(f"{path} has more than {MOST_ROWS:,} rows; restore the official file")
                yield row
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8 (byte {error.start:,}); restore the official file") from error
    except csv.Error as error:
        raise ValueError(f"{path} is not a CSV table ({error}); restore the official file") from error


def digest(paths: Sequence[Path]) -> str:
    """Return a hash of the files' content; ValueError if one is missing."""
    for path in paths:
        _check_file(path)
    hashes = [_sha256(path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


@functools.cache
def _sha256(path: Path, size: int, changed: int) -> str:
    return storage.file_sha256(path)


def number_of(row: Row, column: str, most: int = 10**6) -> int:
    """Return a column of a row as an integer from 0 to `most`; ValueError for any other value."""
    text = row.values[column]
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) <= most):
        raise ValueError(f"{row.where}: {column} is {text[:30]!r}, expected a number from 0 to {most:,}")
    return int(text)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"{path} is missing; set data.root to the folder of the official archive")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path} has {size / 2**20:,.0f} MiB, more than a table of WILDS; restore the official file")
