"""The table of formats and layouts in docs/soup.md: a row and the test that makes it, in one place.

A test is registered with the columns of its row; `lines` are the table, and a test compares them
with the guide's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelsoups import soup

HEAD = ("what", "read", "written as", "checked with", "refused")
Check = Callable[[Path], None]  # a test in an empty folder


@dataclass(frozen=True)
class Row:
    """The cells of a row, which are Markdown, and its test."""

    cells: tuple[str, ...]
    check: Check


ROWS: list[Row] = []


def row(*cells: str) -> Callable[[Check], Check]:
    """Register a test as what makes this row of the table."""
    assert len(cells) == len(HEAD)

    def register(check: Check) -> Check:
        ROWS.append(Row(cells, check))
        return check

    return register


def of(module: str) -> pytest.MarkDecorator:
    """Parametrize a test with the rows that a module has registered."""
    mine = [row for row in ROWS if row.check.__module__ == module]
    return pytest.mark.parametrize("each", mine, ids=[row.check.__name__ for row in mine])


def rows() -> list[Row]:
    """All rows in the order of their modules' names, in whatever order these were imported."""
    return sorted(ROWS, key=lambda row: row.check.__module__)


def lines() -> str:
    """The table in Markdown."""
    rule = ("---",) * len(HEAD)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (HEAD, rule, *(row.cells for row in rows())))


def soup_of_copies(file: Path, copy: Path | None = None) -> Path:
    """The soup of a file and of a copy with the same numbers, as a safetensors file."""
    if copy is None:
        copy = file.with_name(f"copy-{file.name}")
        copy.write_bytes(file.read_bytes())
    out = file.with_name(f"{file.name}-soup.safetensors")
    soup.mix(soup.uniform([file, copy]), out)
    return out
