"""Table 3 beside the paper's, as Markdown, LaTeX, CSV and plain text."""

from __future__ import annotations

import csv
import io
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from modelsoups.published import tables
from modelsoups.report.numbers import Measured, Numbers, percent, signed

RANDOM = "greedy_random_"  # rows of the random orders, which one line stands for
PAPER_NAMES = {  # row -> its name in the paper's Table 3
    "best": "Best individual model",
    "second_best": "Second best model",
    "uniform": "Uniform soup",
    "greedy": "Greedy soup",
    "greedy_random": "Greedy soup (random order)",
    "learned": "Learned soup",
    "learned_layers": "Learned soup (by layer)",
    "ensemble": "Ensemble",
    "greedy_ensemble": "Greedy ensemble",
}
OWN_NAMES = {
    "initialization": "Initialization",
    "zeroshot": "Zero-shot",
    "greedy_replacement": "Greedy soup (with replacement)",
}


@dataclass(frozen=True)
class Line:
    """One line of Table 3. Accuracies are shares; the paper's are per cent; spread: standard deviation over orders."""

    row: str
    label: str
    test: float
    shifts: float | None
    by_set: dict[str, float]  # each shift and extra set that is available
    paper: tuple[float, float] | None
    spread: tuple[float, float | None] | None = None
    interval: tuple[float, float] | None = None


def table_3(numbers: Numbers) -> list[Line]:
    """The rows of the paper in its order, between the initial models and those that the paper has elsewhere."""
    rows = numbers.rows
    paper = tables.paper_table("table_3").rows
    wise = [r for r in rows if r.startswith("wise_ft")]
    order = ["zeroshot", "initialization", *PAPER_NAMES, "greedy_replacement", *wise]
    order += [r for r in rows if r not in order and not r.startswith(RANDOM)]  # methods that were added
    lines = []
    for name in order:
        printed = _pair(paper[PAPER_NAMES[name]]) if name in PAPER_NAMES else None
        if name == "greedy_random":
            orders = [row for r, row in rows.items() if r.startswith(RANDOM)]
            lines += [_mean_line(numbers, orders, printed)] if orders else []
        elif name in rows:
            lines.append(_line(numbers, rows[name], printed))
    return lines


def _pair(printed: Sequence[float | None]) -> tuple[float, float]:
    imagenet, shifts = printed
    assert imagenet is not None, "Table 3 has no empty cells"
    assert shifts is not None, "Table 3 has no empty cells"
    return imagenet, shifts


def label_of(row: str) -> str:
    """How a row is called in tables and figures."""
    if row.startswith("wise_ft_"):
        base, alpha = row.removeprefix("wise_ft_").rsplit("_", 1)
        return f"WiSE-FT of the {'greedy soup' if base == 'greedy' else 'best individual'}, alpha {alpha}"
    return PAPER_NAMES.get(row) or OWN_NAMES.get(row, row)


def _line(numbers: Numbers, row: Measured, paper: tuple[float, float] | None) -> Line:
    result = row.results[numbers.test]
    by_set = {name: row.accuracy(name) for name in [*numbers.shifts, *numbers.extra] if name in row.results}
    interval = (result.low, result.high)
    return Line(row.name, label_of(row.name), result.accuracy, numbers.shift_mean(row), by_set, paper, None, interval)


def _mean_line(numbers: Numbers, rows: list[Measured], paper: tuple[float, float] | None) -> Line:
    tests = [row.accuracy(numbers.test) for row in rows]
    means = [mean for row in rows if (mean := numbers.shift_mean(row)) is not None]
    names = [n for n in [*numbers.shifts, *numbers.extra] if n in rows[0].results]
    by_set = {n: statistics.fmean(r.accuracy(n) for r in rows) for n in names}
    shifts = statistics.fmean(means) if means else None
    spread = (_std(tests), _std(means) if means else None)
    return Line("greedy_random", label_of("greedy_random"), statistics.fmean(tests), shifts, by_set, paper, spread)


def _std(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def cells(numbers: Numbers, line: Line) -> list[str]:
    """The line as text: label, test, mean of shifts, the paper's two, then each shift and extra set."""
    paper = [f"{x:.2f}" for x in line.paper] if line.paper else ["", ""]
    return [line.label, *accuracies(line), *paper, *by_set(numbers, line)]


def accuracies(line: Line) -> list[str]:
    """Test accuracy and mean of the shifts, with the standard deviation over orders where there are several."""
    test, shifts = percent(line.test), percent(line.shifts)
    if line.spread:
        test += f" ({percent(line.spread[0])})"
        shifts += "" if line.spread[1] is None else f" ({percent(line.spread[1])})"
    return [test, shifts]


def by_set(numbers: Numbers, line: Line) -> list[str]:
    """Accuracy on each shift and extra set."""
    return [percent(line.by_set.get(name)) for name in [*numbers.shifts, *numbers.extra]]


def differences(line: Line) -> list[str]:
    """Ours minus the paper's, in points: test and mean of the shifts; empty where the paper has no such row."""
    ours = (line.test, line.shifts)
    if line.paper is None:
        return ["", ""]
    return ["" if x is None else signed(100 * x - theirs) for x, theirs in zip(ours, line.paper, strict=True)]


def header(numbers: Numbers) -> list[str]:
    first = [
        "Method",
        f"{numbers.title(numbers.test)} (test)",
        "Dist. shifts",
        "Paper: ImageNet",
        "Paper: dist. shifts",
    ]
    return first + [numbers.title(name) for name in [*numbers.shifts, *numbers.extra]]


def rows_of(numbers: Numbers) -> Rows:
    """Table 3 as text, its header first."""
    return [header(numbers), *(cells(numbers, line) for line in table_3(numbers))]


def beside_paper(numbers: Numbers) -> Rows:
    """Table 3 as narrow as a page of print: ours, the paper's and the difference, twice."""
    test = numbers.title(numbers.test)
    head = ["Method", test, "Paper", "Diff.", "Dist. shifts", "Paper", "Diff."]
    rows = [head]
    for line in table_3(numbers):
        ours, theirs, apart = accuracies(line), cells(numbers, line)[3:5], differences(line)
        rows.append([line.label, ours[0], theirs[0], apart[0], ours[1], theirs[1], apart[1]])
    return rows


def each_set(numbers: Numbers) -> Rows:
    """Accuracy on each distribution shift and extra set."""
    names = [*numbers.shifts, *numbers.extra]
    head = ["Method", *(numbers.title(name) for name in names)]
    return [head, *([line.label, *by_set(numbers, line)] for line in table_3(numbers))]


def summary_rows(numbers: Numbers) -> Rows:
    """Table 3 for a terminal of 80 columns: label, test, shifts and the paper's two."""
    rows = [["", "test", "shifts", "paper", "paper"], ["", "", "", "ImageNet", "shifts"]]
    return rows + [cells(numbers, line)[:5] for line in table_3(numbers)]


# ---- any table, its header first, in each form ----

Rows = list[list[str]]


def markdown(rows: Rows) -> str:
    head, *body = [[escape_markdown(cell) for cell in row] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] + ["---:"] * (len(head) - 1), *body])


def latex(rows: Rows) -> str:
    r"""A tabular in the style of booktabs, to \input after \usepackage{booktabs}."""
    head, *body = [" & ".join(escape_latex(cell) for cell in row) + r" \\" for row in rows]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}"
    lines = [begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(["% needs \\usepackage{booktabs}", *lines]) + "\n"


def comma_separated(rows: Rows) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def aligned(rows: Rows) -> str:
    """For a terminal: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([r[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(r[1:], widths[1:], strict=True))])
                     for r in rows)  # fmt: skip


def escape_markdown(text: str) -> str:
    """As text in a cell of a Markdown table, HTML included; a cell is one line."""
    return re.sub(r"([\\`*_\[\]<>|#$&~!])", r"\\\1", " ".join(text.split()))


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\textasciigrave{}"}
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
_LATEX |= {"[": "{[}", "]": "{]}"}  # a row may not begin with a bracket: it would be an option of the line before


def escape_latex(text: str) -> str:
    """As text in a cell, in the T1 or the default encoding."""
    plain = "".join(_LATEX.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in " ".join(text.split()))
    return re.sub(r"^-(?=[\d.])", "$-$", plain)  # a minus sign, not a hyphen
