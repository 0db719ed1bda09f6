"""Table 3 beside the paper's, as Markdown, LaTeX, CSV and plain text."""

from __future__ import annotations

import csv
import io
import json
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

from modelsoups.evidence import Row
from modelsoups.reporting.compare import Numbers, percent

PUBLISHED = Path(__file__).resolve().parents[1] / "assets" / "published"
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
    rows = numbers.evidence.rows
    paper = json.loads((PUBLISHED / "tables.json").read_text())["table_3"]["rows"]
    wise = [r for r in rows if r.startswith("wise_ft")]
    order = ["zeroshot", "initialization", *PAPER_NAMES, "greedy_replacement", *wise]
    lines = []
    for name in order:
        published = tuple(paper[PAPER_NAMES[name]]) if name in PAPER_NAMES else None
        if name == "greedy_random":
            orders = [row for r, row in rows.items() if r.startswith("greedy_random_")]
            lines += [_mean_line(numbers, orders, published)] if orders else []
        elif name in rows:
            lines.append(_line(numbers, rows[name], published))
    return lines


def label_of(row: str) -> str:
    """How a row is called in tables and figures."""
    if row.startswith("wise_ft_"):
        base, alpha = row.removeprefix("wise_ft_").rsplit("_", 1)
        return f"WiSE-FT of the {'greedy soup' if base == 'greedy' else 'best individual'}, alpha {alpha}"
    return PAPER_NAMES.get(row) or OWN_NAMES.get(row, row)


def _line(numbers: Numbers, row: Row, paper: tuple[float, float] | None) -> Line:
    result = numbers.result(row, numbers.test)
    by_set = {name: row.accuracy(name) for name in [*numbers.shifts, *numbers.extra] if name in row.correct}
    interval = (result.low, result.high)
    return Line(row.name, label_of(row.name), result.accuracy, numbers.shift_mean(row), by_set, paper, None, interval)


def _mean_line(numbers: Numbers, rows: list[Row], paper: tuple[float, float] | None) -> Line:
    tests = [row.accuracy(numbers.test) for row in rows]
    means = [mean for row in rows if (mean := numbers.shift_mean(row)) is not None]
    names = [n for n in [*numbers.shifts, *numbers.extra] if n in rows[0].correct]
    by_set = {n: statistics.fmean(r.accuracy(n) for r in rows) for n in names}
    shifts = statistics.fmean(means) if means else None
    spread = (_std(tests), _std(means) if means else None)
    return Line("greedy_random", label_of("greedy_random"), statistics.fmean(tests), shifts, by_set, paper, spread)


def _std(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def cells(numbers: Numbers, line: Line) -> list[str]:
    """The line as text: label, test, mean of shifts, the paper's two, then each shift and extra set."""
    test, shifts = percent(line.test), percent(line.shifts)
    if line.spread:
        test += f" ({percent(line.spread[0])})"
        shifts += "" if line.spread[1] is None else f" ({percent(line.spread[1])})"
    paper = [f"{x:.2f}" for x in line.paper] if line.paper else ["", ""]
    each = [percent(line.by_set.get(name)) for name in [*numbers.shifts, *numbers.extra]]
    return [line.label, test, shifts, *paper, *each]


def header(numbers: Numbers) -> list[str]:
    titles = {s.name: s.title for s in numbers.evidence.sets}
    first = ["Method", f"{titles[numbers.test]} (test)", "Dist. shifts", "Paper: ImageNet", "Paper: dist. shifts"]
    return first + [titles[name] for name in [*numbers.shifts, *numbers.extra]]


def rows_of(numbers: Numbers) -> Rows:
    """Table 3 as text, its header first."""
    return [header(numbers), *(cells(numbers, line) for line in table_3(numbers))]


def plain(numbers: Numbers) -> str:
    """Table 3 for a terminal of 80 columns: label, test, shifts and the paper's two."""
    rows = [["", "test", "shifts", "paper", "paper"], ["", "", "", "ImageNet", "shifts"]]
    return aligned(rows + [cells(numbers, line)[:5] for line in table_3(numbers)])


# ---- any table, its header first, in each form ----

Rows = list[list[str]]


def markdown(rows: Rows) -> str:
    head, *body = [[escape_markdown(cell) for cell in row] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] + ["---:"] * (len(head) - 1), *body])


def latex(rows: Rows) -> str:
    head, *body = [" & ".join(escape_latex(cell) for cell in row) + r" \\" for row in rows]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}"
    return "\n".join([begin, r"\hline", head, r"\hline", *body, r"\hline", r"\end{tabular}"]) + "\n"


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
    return re.sub(r"([\\`*_\[\]<>|#$&])", r"\\\1", text)


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def escape_latex(text: str) -> str:
    return "".join(_LATEX.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
