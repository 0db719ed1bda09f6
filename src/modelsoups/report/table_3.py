"""Table 3 of the paper with the scores of a run, next to the printed ones.

Columns without any number are left out: shifts if the run has none, the paper's numbers if there
are none for its model and data. Runs on texts have the numbers of Table J.1 in place of Table 3's.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from modelsoups.published import glue, tables
from modelsoups.published.later import later_soups
from modelsoups.published.tables import PAPER_NAMES, printed
from modelsoups.report.numbers import Numbers, RowResults, percent, signed
from modelsoups.report.text_tables import TextTable

RANDOM = "greedy_random_"  # prefix of the rows that are averaged in one row of the table
OTHER_NAMES = {
    "initialization": "Initialization",
    "zeroshot": "Zero-shot",
    "learned_tensors": "Learned soup (by tensor)",
    "greedy_replacement": "Greedy soup (with replacement)",
    "best_validation": "Best individual model (chosen on the test set)",
    "greedy_validation": "Greedy soup (chosen on the test set)",
}


@dataclass(frozen=True)
class MethodRow:
    """One method's row of Table 3. Only `paper` is times 100, with `digits` decimals.

    shifts: mean over the shifts. by_set: score on each shift and extra set, or None if missing.
    spread: standard deviations of test and shifts, if the row is a mean over several random orders.
    """

    row: str
    label: str
    test: float
    shifts: float | None
    by_set: dict[str, float | None]
    paper: tuple[float, float | None] | None
    spread: tuple[float, float | None] | None = None
    digits: int = 2

    @property
    def ours(self) -> list[str]:
        """Two table cells: our test score and mean over shifts, with standard deviations."""
        test, shifts = percent(self.test), percent(self.shifts)
        if self.spread:
            test += f" ({percent(self.spread[0])})"
            shifts += "" if self.spread[1] is None else f" ({percent(self.spread[1])})"
        return [test, shifts]

    @property
    def theirs(self) -> list[str]:
        """Two table cells: the paper's test score and mean over the shifts, or empty texts."""
        values = self.paper or (None, None)
        return ["" if value is None else f"{value:.{self.digits}f}" for value in values]

    @property
    def differences(self) -> list[str]:
        """Two table cells: our test score and mean over shifts minus the paper's (points)."""
        ours, values = (self.test, self.shifts), self.paper or (None, None)
        pairs = zip(ours, values, strict=True)
        return ["" if a is None or b is None else signed(100 * a - b) for a, b in pairs]

    @property
    def sets(self) -> list[str]:
        """A table cell for each shift and each extra data set, with our score on it."""
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
    if row in later_soups():
        return f"{later_soups()[row].label} (not in the paper)"
    return PAPER_NAMES.get(row) or OTHER_NAMES.get(row, row)


def paper_cell(numbers: Numbers) -> glue.Cell | None:
    """Return the paper's scores on texts for the run's model and data set, or None."""
    config = numbers.config
    if config.get("task") != "text":
        return None
    return glue.cell(str(config["model"]["name"]), str(config["data"]["name"]))


def has_paper(numbers: Numbers) -> bool:
    """Return whether the tables have the paper's columns: for images, and texts in Table J.1."""
    return numbers.has_top_1 or paper_cell(numbers) is not None


def method_rows(numbers: Numbers) -> list[MethodRow]:
    """Return the rows of Table 3: initial models, the paper's methods, then our additional ones."""
    rows = numbers.rows
    wise = [name for name in rows if name.startswith("wise_ft")]
    methods = [*PAPER_NAMES, "greedy_replacement"]
    methods.insert(methods.index("learned_layers") + 1, "learned_tensors")
    order = ["zeroshot", "initialization", *methods, *wise]
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
    spread = (statistics.stdev(tests), statistics.stdev(means) if means else None) if len(rows) > 1 else None
    paper, digits = paper_scores(numbers, name)
    return MethodRow(name, label_of(name), test, shifts, by_set, paper, spread, digits)


def paper_scores(numbers: Numbers, row: str) -> tuple[tuple[float, float | None] | None, int]:
    """Return a row's test score and mean over shifts in the paper, or None; and their decimals.

    The authors' learned soup is not in the paper: its score is the one that their code states.
    """
    if numbers.has_top_1 and is_authors_learned(numbers, row):
        return (100 * tables.released_rows()[row]["val"], None), 2
    if numbers.has_top_1:
        return printed(row), 2
    cell = paper_cell(numbers)
    test = cell.score(row) if cell else None
    return None if test is None else (test, None), 1


def is_authors_learned(numbers: Numbers, row: str) -> bool:
    """Return whether a row is the learned soup of the authors' code, with its settings."""
    return row == "learned_tensors" and numbers.config.get("protocol") == "released"


# ---- versions of the table; each starts with its header ----


def wide(numbers: Numbers) -> TextTable:
    """Return Table 3 in full: our scores, the paper's, and ours on each data set."""
    cell = paper_cell(numbers)
    test = f"{numbers.title(numbers.test)} (test)" if numbers.has_top_1 else _test_title(numbers)
    head = ["Method", test, "Dist. shifts", f"Paper: {cell.title if cell else 'ImageNet'}", "Paper: dist. shifts"]
    rows = [head + set_titles(numbers), *(row.cells for row in method_rows(numbers))]
    return _kept(rows, _shown(numbers) + [True] * len(set_titles(numbers)))


def beside_paper(numbers: Numbers) -> TextTable:
    """Return Table 3 for print: ours, the paper's, the difference, for test and mean of shifts."""
    test = numbers.title(numbers.test) if numbers.has_top_1 else _test_title(numbers)
    rows = [["Method", test, "Paper", "Diff.", "Dist. shifts", "Paper", "Diff."]]
    for row in method_rows(numbers):
        columns = zip(row.ours, row.theirs, row.differences, strict=True)
        rows.append([row.label, *chain.from_iterable(columns)])
    method, test_there, shifts_there, paper, paper_shifts = _shown(numbers)
    return _kept(rows, [method, test_there, paper, paper, shifts_there, paper_shifts, paper_shifts])


def each_set(numbers: Numbers) -> TextTable:
    return [["Method", *set_titles(numbers)], *([row.label, *row.sets] for row in method_rows(numbers))]


def summary(numbers: Numbers) -> TextTable:
    """Return Table 3 for 80-column terminals: test and mean of shifts, ours and the paper's."""
    cell = paper_cell(numbers)
    below = "ImageNet" if cell is None else cell.model
    score = "" if numbers.has_top_1 else numbers.score_in_words
    rows = [[score, "test", "shifts", "paper", "paper"], ["", "", "", below, "shifts"]]
    rows += [row.cells[:5] for row in method_rows(numbers)]
    return _kept(rows if has_paper(numbers) else [rows[0], *rows[2:]], _shown(numbers))


def _test_title(numbers: Numbers) -> str:
    return f"{numbers.title(numbers.test)}: {numbers.score}"


def _shown(numbers: Numbers) -> list[bool]:
    """Return whether Table 3 has its columns: method, test, shifts, the paper's test and shifts."""
    shifts, paper = bool(numbers.shifts), has_paper(numbers)
    return [True, True, shifts, paper, paper and shifts and numbers.has_top_1]


def _kept(rows: TextTable, columns: Sequence[bool]) -> TextTable:
    """Return the rows with only those columns for which `columns` is True."""
    return [[cell for cell, keep in zip(row, columns, strict=True) if keep] for row in rows]


def set_titles(numbers: Numbers) -> list[str]:
    return list(map(numbers.title, [*numbers.shifts, *numbers.extra]))
