"""Formats a table of strings as Markdown, LaTeX, CSV or aligned terminal text."""

import csv
import io
import re
from collections.abc import Iterable

from modelsoups.disk.terminal import printable

TextTable = list[list[str]]  # rows of cells, header first

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # LaTeX would read a bracket at the start of a row as an option of the line before
    "]": "{]}",
}
_LATEX_TABLE = str.maketrans({**_LATEX, **{character: f"\\{character}" for character in "&%$#_{}"}})


def markdown(rows: TextTable) -> str:
    """Return a Markdown table with its first column left-aligned and the others right-aligned."""
    head, *body = (_markdown_line(map(escape_markdown, row)) for row in rows)
    return head + _markdown_line(["---"] + ["---:"] * (len(rows[0]) - 1)) + "".join(body)


def _markdown_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def latex(rows: TextTable) -> str:
    r"""Return a LaTeX tabular in booktabs style, to \input after \usepackage{booktabs}."""
    head, *body = (" & ".join(map(escape_latex, row)) + r" \\" for row in rows)
    begin = rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}"
    lines = [begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(["% needs \\usepackage{booktabs}", *lines]) + "\n"


def comma_separated(rows: TextTable) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def aligned(rows: TextTable) -> str:
    """Return the table as aligned text: first column left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        padded = map(str.rjust, others, widths[1:])
        lines.append("  ".join([first.ljust(widths[0]), *padded]))
    return "\n".join(lines)


def files(name: str, rows: TextTable) -> dict[str, str]:
    """Return the table as file name -> content: name.md, name.tex and name.csv."""
    return {f"{name}.md": markdown(rows), f"{name}.tex": latex(rows), f"{name}.csv": comma_separated(rows)}


def escape_markdown(text: str) -> str:
    """Return the text on one line, with all Markdown, HTML and control characters escaped."""
    return printable(re.sub(r"([\\`*_\[\]<>|#$&~!])", r"\\\1", " ".join(text.split())))


def escape_latex(text: str) -> str:
    """Escape text for a LaTeX cell; a hyphen before a number becomes a minus sign."""
    plain = " ".join(text.split()).translate(_LATEX_TABLE)
    return re.sub(r"^-(?=[\d.])", "$-$", plain)
