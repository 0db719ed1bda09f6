"""The parts of a page: sections of text, tables and figures, with the origin of their numbers.

The template report.html shows a list of sections. `files` returns their tables and figures as files
for a paper (Markdown, CSV and LaTeX; PDF and PNG).

    pairs = Table("figure_3_pairs", ["Pair", "Angle"], [["000, 001", Cell("81.2", "computed ...")]])
    Section("Figure 3", "The gain grows ...", [Picture("figure_3", figure, "A dot per pair."),
    pairs])
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from modelsoups.disk import storage
from modelsoups.report import plotting, svg, text_tables
from modelsoups.workers.processes import advance


def origin(provenance: Mapping[str, Any], row: str = "") -> str:
    """Return how a number was computed, as text: run, commit, configuration and command.

    row: a model or method; its own file, command and commit are used if provenance.json has them.
    """
    own, config = provenance.get("rows", {}).get(row, {}), provenance.get("config", {})
    command, commit = (own.get(key) or provenance.get(key) for key in ("command", "commit"))
    sha256 = f", sha256 {own['sha256'][:12]}" if own.get("sha256") else ""
    model = f"{own['file']}{sha256}" if "file" in own else ""
    run = " ".join(filter(None, (config.get("runs"), model))) or "not recorded"
    commit, fingerprint = (commit or "not recorded")[:12], storage.fingerprint(config)
    return f"Run {run}; commit {commit}; config {fingerprint}; command: {command or '?'}"


@dataclass(frozen=True)
class Cell:
    """A table cell. tip: its tooltip; kind: best (bold), a verdict (holds, fails, open), or ""."""

    text: str
    tip: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the page; its rows contain texts or Cells, without the header.

    groups: (title, number of columns) of headings above the header. text: how many of the first
    columns contain prose. file: whether it is also written as .md, .csv and .tex files.
    parts: (title, number of rows) of the groups of rows, if they have titles.
    """

    name: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    caption: str = ""
    groups: Sequence[tuple[str, int]] = ()
    text: int = 1
    file: bool = True
    parts: Sequence[tuple[str, int]] = ()

    @property
    def bodies(self) -> list[tuple[str, Sequence[Sequence[Cell | str]]]]:
        """The rows in their groups, as (title, rows); without groups one with an empty title."""
        found, begin = [], 0
        for title, count in self.parts or [("", len(self.rows))]:
            found.append((title, self.rows[begin : begin + count]))
            begin += count
        return found

    @property
    def labels(self) -> list[str]:
        """A column's title with its group's, for narrow screens, where a cell stands alone."""
        above = [title for title, span in self.groups for _ in range(span)] or [""] * len(self.head)
        return [f"{group}: {title.lower()}" if group else title for group, title in zip(above, self.head, strict=True)]

    def plain(self) -> text_tables.TextTable:
        """Return the header and the rows as lists of plain strings, without tooltips."""
        rows = [list(self.head)]
        for row in self.rows:
            rows.append([cell.text if isinstance(cell, Cell) else cell for cell in row])
        return rows


@dataclass(frozen=True)
class Picture:
    """A matplotlib figure and its caption. name: the name of its files, without suffix.

    narrow: the same figure for phones, with its panels below each other, if it has several.
    """

    name: str
    figure: Figure
    caption: str

    narrow: Figure | None = None

    def drawings(self) -> list[tuple[str, str]]:
        """Return (class, `<svg>` element): one figure, or a "wide" and a "narrow" one."""
        if self.narrow is None:
            return [("", self._svg(self.figure, self.name))]
        wide = ("wide", self._svg(self.figure, self.name))
        return [wide, ("narrow", self._svg(self.narrow, f"{self.name}-narrow"))]

    def _svg(self, figure: Figure, name: str) -> str:
        content, texts = plotting.save(figure, "svg"), plotting.described(figure)
        return svg.inline(content, texts, name, self.caption)


@dataclass(frozen=True)
class Photograph:
    """A raster image. name: its file name without suffix; png: its bytes; alt: its alt text."""

    name: str
    png: bytes
    alt: str


@dataclass(frozen=True)
class Lead:
    """The most important sentences of a section, in large type."""

    sentences: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """A list of (name, value), such as commands and versions."""

    facts: Sequence[tuple[str, str]]


Content = Table | Picture | Photograph | Lead | Facts | str  # a str is a paragraph


@dataclass(frozen=True)
class Section:
    """One section of a page. sentence: what it shows; origin: which run and command produced it."""

    title: str
    sentence: str
    contents: Sequence[Content]
    origin: str = ""

    @property
    def anchor(self) -> str:
        """The section's HTML id: its title in lower case, with hyphens between words."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def files(sections: Sequence[Section]) -> dict[str, bytes]:
    """Return each table as .md, .csv and .tex, and each figure as .pdf and .png, by file name."""
    made: dict[str, bytes] = {}
    for section in sections:
        for content in section.contents:
            advance(1)
            if isinstance(content, Picture):
                for kind in ("pdf", "png"):
                    made[f"{content.name}.{kind}"] = plotting.save(content.figure, kind)
            elif isinstance(content, Photograph):
                made[f"{content.name}.png"] = content.png
            elif isinstance(content, Table) and content.file:
                for name, text in text_tables.files(content.name, content.plain()).items():
                    made[name] = text.encode()
    return made
