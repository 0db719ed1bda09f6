"""Formats a table of strings as Markdown, LaTeX, CSV or aligned terminal text."""

import csv
import io
import re
from collections.abc import Iterable

TextTable = list[list[str]]  # rows of cells, the header first

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # a row that began with a bare bracket would be an option of the line before
    "]": "{]}",
}
_LATEX_TABLE = str.maketrans({**_LATEX, **{character: f"\\{character}" for character in "&%$#_{}"}})


def markdown(rows: TextTable) -> str:
    """A Markdown table, its first column to the left and the others to the right."""
    head, *body = (_markdown_line(map(escape_markdown, row)) for row in rows)
    return head + _markdown_line(["---"] + ["---:"] * (len(rows[0]) - 1)) + "".join(body)


def _markdown_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def latex(rows: TextTable) -> str:
    r"""A tabular in the style of booktabs, to \input after \usepackage{booktabs}."""
    head, *body = (" & ".join(map(escape_latex, row)) + r" \\" for row in rows)
    begin = rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}"
    lines = [begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(["% needs \\usepackage{booktabs}", *lines]) + "\n"


def comma_separated(rows: TextTable) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def aligned(rows: TextTable) -> str:
    """Columns of spaces: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        padded = map(str.rjust, others, widths[1:])
        lines.append("  ".join([first.ljust(widths[0]), *padded]))
    return "\n".join(lines)


def files(name: str, rows: TextTable) -> dict[str, str]:
    """The table in each form that a paper or a spreadsheet takes, by file name."""
    return {f"{name}.md": markdown(rows), f"{name}.tex": latex(rows), f"{name}.csv": comma_separated(rows)}


def escape_markdown(text: str) -> str:
    """Text for one line of Markdown or one cell of a table, in which nothing is markup or HTML."""
    return re.sub(r"([\\`*_\[\]<>|#$&~!])", r"\\\1", " ".join(text.split()))


def escape_latex(text: str) -> str:
    """Text for a cell, in the T1 or the default font encoding. A leading minus is not a hyphen."""
    plain = " ".join(text.split()).translate(_LATEX_TABLE)
    return re.sub(r"^-(?=[\d.])", "$-$", plain)
