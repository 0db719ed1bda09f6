"""The index of the paper: every numbered figure and table, and the commands that make it.

`modelsoups report --list` prints it, and docs/paper.md begins with it (`python docs/paper_list.py`).
To add a figure or table, edit its line in assets/published/index.jsonl.
"""

import textwrap
from dataclasses import dataclass

from modelsoups.disk import storage
from modelsoups.disk.paths import ASSETS

FILE = ASSETS / "published" / "index.jsonl"
HEAD = ("In the paper", "Shows", "On the paper's data", "Here", "Needs, beyond what is public")
WIDTH = 100  # characters of a line of `text`
KEY = 9  # characters of the words "on paper" and so on, that begin a line


@dataclass(frozen=True)
class Entry:
    """A figure or table of the paper, or one beyond the paper.

    makes: the names, without suffix, of the files that show it: analyses ("figure_2") and parts of a
    report ("table_3"). paper, here: the commands on the paper's data, and on data that ship with the
    package; both are empty if nothing makes it, and then why_not says why. needs: what it needs that
    cannot simply be downloaded.
    """

    name: str
    title: str
    makes: tuple[str, ...]
    needs: str
    paper: str = ""
    here: str = ""
    why_not: str = ""


def entries() -> tuple[Entry, ...]:
    """Return the index in the paper's order, then what is beyond the paper.

    Raises ValueError if an entry has neither commands nor a reason, or has both.
    """
    found = []
    for line in storage.read_jsonl(FILE):
        entry = Entry(**{**line, "makes": tuple(line["makes"])})
        if bool(entry.why_not) == bool(entry.makes and entry.paper and entry.here):
            raise ValueError(f"{FILE}: {entry.name}: expected makes, paper and here, or else why_not")
        found.append(entry)
    return tuple(found)


def text() -> str:
    """Return the index for a terminal: a paragraph for each figure or table."""
    return "\n\n".join(map(_paragraph, entries()))


def _paragraph(entry: Entry) -> str:
    lines = [f"{entry.name}. {entry.title}"]
    if entry.why_not:
        lines.append(f"  {'made':<{KEY}}{entry.why_not}")
    else:
        lines += [f"  {'paper':<{KEY}}{entry.paper}", f"  {'here':<{KEY}}{entry.here}"]
    indent = " " * (KEY + 2)
    lines.append(textwrap.fill(f"  {'needs':<{KEY}}{entry.needs}", WIDTH, subsequent_indent=indent))
    return "\n".join(lines)


def markdown() -> str:
    """Return the index as a Markdown table, without commands where `why_not` says why."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    for entry in entries():
        commands = [f"`{entry.paper}`", f"`{entry.here}`"] if entry.makes else [entry.why_not, ""]
        lines.append(f"| {' | '.join([entry.name, entry.title, *commands, entry.needs])} |")
    return "\n".join(lines) + "\n"
