"""What a page is made of: sections of text, tables and figures, each knowing what made its numbers.

An analysis adds a Section to the list; `page.document` then shows it, and `files` gives its tables and figures as files
for a paper (Markdown, CSV and LaTeX; PDF and PNG).

    Section("Figure 3", "The advantage of averaging grows with the angle between models.", [
        Picture("figure_3", figure, "A dot a pair of models."),        # a Figure, its marks told with figures.describe
        Table("figure_3_pairs", ["Pair", "Angle"], [["000, 001", Cell("81.2", "computed from ...")]])], source)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from modelsoups.disk import storage
from modelsoups.report import figures, tables
from modelsoups.workers.processes import advance


@dataclass(frozen=True)
class Source:
    """What made a number: the run, the command, the commit and the configuration (its fingerprint)."""

    run: str
    command: str | None
    commit: str | None
    config: str
    what: str = ""  # file and hash of the model, where it is one model's number

    @classmethod
    def of(cls, provenance: Mapping[str, Any], row: str = "") -> Source:
        """From provenance.json; of a row or ingredient, where that was made by another command."""
        own = provenance.get("rows", {}).get(row, {})
        config = provenance.get("config", {})
        made = {k: own.get(k) or provenance.get(k) for k in ("command", "commit")}
        sha256 = f", sha256 {own['sha256'][:12]}" if own.get("sha256") else ""
        what = f"{own['file']}{sha256}" if "file" in own else ""
        return cls(config.get("runs", ""), made["command"], made["commit"], storage.fingerprint(config), what)

    def __str__(self) -> str:
        commit = (self.commit or "not recorded")[:12]
        run = " ".join(x for x in (self.run, self.what) if x)
        return f"Run {run or 'not recorded'}; commit {commit}; config {self.config}; command: {self.command or '?'}"


@dataclass(frozen=True)
class Cell:
    """A number or name of a table. tip: what the page says about it; kind: holds, fails, open, or ""."""

    text: str
    tip: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """rows of text or Cells under head; groups: (title, number of columns) over the head; text: columns of prose."""

    name: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    caption: str = ""
    groups: Sequence[tuple[str, int]] = ()
    text: int = 1
    file: bool = True  # whether files for a paper are made of it

    def plain(self) -> tables.Rows:
        """As text, header first."""
        body = [[cell.text if isinstance(cell, Cell) else cell for cell in row] for row in self.rows]
        return [list(self.head), *body]


@dataclass(frozen=True)
class Picture:
    """A figure with its caption; name is the name of its files."""

    name: str
    figure: Figure
    caption: str


@dataclass(frozen=True)
class Photograph:
    """An image of pixels; png: its file; alt: what it shows, for who does not see it."""

    name: str
    png: bytes
    alt: str


@dataclass(frozen=True)
class Cards:
    """The few numbers that a reader should see first: title, number, and what to know about it, a line each."""

    cards: Sequence[tuple[str, Cell, Sequence[str]]]


Part = Table | Picture | Photograph | Cards | str


@dataclass(frozen=True)
class Section:
    """title, one sentence of what there is to see, and the parts; a str among them is a paragraph."""

    title: str
    sentence: str
    parts: Sequence[Part]
    source: Source | None = field(default=None)

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def files(sections: Sequence[Section]) -> dict[str, bytes]:
    """Every table as .md, .csv and .tex, and every figure as .pdf and .png, by file name."""
    made: dict[str, bytes] = {}
    for part in (part for section in sections for part in section.parts):
        advance(1)
        if isinstance(part, Picture):
            made |= {f"{part.name}.{kind}": figures.save(part.figure, kind) for kind in ("pdf", "png")}
        elif isinstance(part, Photograph):
            made[f"{part.name}.png"] = part.png
        elif isinstance(part, Table) and part.file:
            made |= {k: v.encode() for k, v in table_files(part.name, part.plain()).items()}
    return made


def table_files(name: str, rows: tables.Rows) -> dict[str, str]:
    """A table in each form, by file name."""
    forms = {"md": tables.markdown, "tex": tables.latex, "csv": tables.comma_separated}
    return {f"{name}.{kind}": form(rows) for kind, form in forms.items()}


def close(sections: Sequence[Section]) -> None:
    """Free the figures."""
    for part in (part for section in sections for part in section.parts):
        if isinstance(part, Picture):
            figures.close(part.figure)
