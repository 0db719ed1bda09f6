"""Table 3 of the paper with the accuracies of a run, next to the printed ones."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from modelsoups.published.tables import PAPER_NAMES, printed
from modelsoups.report.numbers import Numbers, RowResults, percent, signed
from modelsoups.report.text_tables import TextTable

RANDOM = "greedy_random_"  # prefix of the rows that are averaged in one row of the table
OTHER_NAMES = {
    "initialization": "Initialization",
    "zeroshot": "Zero-shot",
    "greedy_replacement": "Greedy soup (with replacement)",
}


@dataclass(frozen=True)
class MethodRow:
    """One method's row of Table 3. `paper` is in percent; all other accuracies are fractions.

    shifts: mean over the shifts. by_set: accuracy on each shift and extra set, or None if missing.
    spread: standard deviations of test and shifts, if the row is a mean over random orders.
    """

    row: str
    label: str
    test: float
    shifts: float | None
    by_set: dict[str, float | None]
    paper: tuple[float, float] | None
    spread: tuple[float, float | None] | None = None

    @property
    def ours(self) -> list[str]:
        """Two table cells: our test accuracy and mean over shifts, with standard deviations."""
        test, shifts = percent(self.test), percent(self.shifts)
        if self.spread:
            test += f" ({percent(self.spread[0])})"
            shifts += "" if self.spread[1] is None else f" ({percent(self.spread[1])})"
        return [test, shifts]

    @property
    def theirs(self) -> list[str]:
        """Two table cells: the paper's test accuracy and mean over the shifts, or empty texts."""
        return [f"{value:.2f}" for value in self.paper] if self.paper else ["", ""]

    @property
    def differences(self) -> list[str]:
        """Two table cells: our test accuracy and mean over shifts minus the paper's (points)."""
        if self.paper is None:
            return ["", ""]
        test = signed(100 * self.test - self.paper[0])
        return [test, "" if self.shifts is None else signed(100 * self.shifts - self.paper[1])]

    @property
    def sets(self) -> list[str]:
        """A table cell for each shift and each extra data set, with our accuracy on it."""
        return list(map(percent, self.by_set.values()))

    @property
    def cells(self) -> list[str]:
        return [self.label, *self.ours, *self.theirs, *self.sets]


def label_of(row: str) -> str:
    """Return the printed name of a row, such as "Greedy soup (random order)" of "greedy_random"."""
    if row.startswith("wise_ft_"):
        base, alpha = row.removeprefix("wise_ft_").rsplit("_", 1)
        base = "greedy soup" if base == "greedy" else "best individual"
        return f"WiSE-FT of the {base}, alpha {alpha}"
    return PAPER_NAMES.get(row) or OTHER_NAMES.get(row, row)


def method_rows(numbers: Numbers) -> list[MethodRow]:
    """Return the rows of Table 3: initial models, the paper's methods, then our additional ones."""
    rows = numbers.rows
    wise = [name for name in rows if name.startswith("wise_ft")]
    order = ["zeroshot", "initialization", *PAPER_NAMES, "greedy_replacement", *wise]
    orders = [row for name, row in rows.items() if name.startswith(RANDOM)]
    added = [name for name in rows if name not in order and not name.startswith(RANDOM)]
    found = []
    for name in [*order, *added]:
        several = orders if name == "greedy_random" else []
        if several or name in rows:
            found.append(_method_row(numbers, name, several or [rows[name]]))
    return found


def _method_row(numbers: Numbers, name: str, rows: list[RowResults]) -> MethodRow:
    """Return a method's row; if `rows` has several (random orders), it contains their mean."""
    tests = [row.accuracy(numbers.test) for row in rows]
    means = [row.shift_mean for row in rows if row.shift_mean is not None]
    by_set: dict[str, float | None] = {}
    for dataset in [*numbers.shifts, *numbers.extra]:
        there = dataset in rows[0].results
        by_set[dataset] = statistics.fmean(row.accuracy(dataset) for row in rows) if there else None
    test, shifts = statistics.fmean(tests), statistics.fmean(means) if means else None
    spread = None if rows[0].name == name else (_std(tests), _std(means) if means else None)
    return MethodRow(name, label_of(name), test, shifts, by_set, printed(name), spread)


def _std(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


# ---- versions of the table; each starts with its header ----


def wide(numbers: Numbers) -> TextTable:
    """Return Table 3 in full: our accuracies, the paper's, and ours on each data set."""
    test = f"{numbers.title(numbers.test)} (test)"
    head = ["Method", test, "Dist. shifts", "Paper: ImageNet", "Paper: dist. shifts"]
    return [head + set_titles(numbers), *(row.cells for row in method_rows(numbers))]


def beside_paper(numbers: Numbers) -> TextTable:
    """Return Table 3 for print: ours, the paper's, the difference, for test and mean of shifts."""
    test = numbers.title(numbers.test)
    rows = [["Method", test, "Paper", "Diff.", "Dist. shifts", "Paper", "Diff."]]
    for row in method_rows(numbers):
        columns = zip(row.ours, row.theirs, row.differences, strict=True)
        rows.append([row.label, *chain.from_iterable(columns)])
    return rows


def each_set(numbers: Numbers) -> TextTable:
    return [["Method", *set_titles(numbers)], *([row.label, *row.sets] for row in method_rows(numbers))]


def summary(numbers: Numbers) -> TextTable:
    """Return Table 3 for 80-column terminals: test and mean of shifts, ours and the paper's."""
    rows = [["", "test", "shifts", "paper", "paper"], ["", "", "", "ImageNet", "shifts"]]
    return rows + [row.cells[:5] for row in method_rows(numbers)]


def set_titles(numbers: Numbers) -> list[str]:
    return list(map(numbers.title, [*numbers.shifts, *numbers.extra]))
