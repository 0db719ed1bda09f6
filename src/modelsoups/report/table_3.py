"""Table 3 of the paper with the scores of a run, next to the printed ones.

A gain is a row's score minus the best individual model's. The paper's gains are shown beside ours;
its scores are shown only for runs on ImageNet, since on other data the two cannot be compared.
Runs on texts have the scores of Table J.1, of their own model and data, in place of Table 3's.
Columns without any number are left out.
"""

import statistics
from dataclasses import dataclass

from modelsoups.published import glue, tables
from modelsoups.published.later import later_soups
from modelsoups.published.tables import PAPER_NAMES, printed
from modelsoups.report.numbers import ON_TEST, Numbers, RowResults, percent, signed
from modelsoups.report.text_tables import TextTable, aligned

RANDOM = "greedy_random_"  # prefix of the rows that are averaged in one row of the table
OTHER_NAMES = {
    "initialization": "Initialization",
    "zeroshot": "Zero-shot",
    "learned_tensors": "Learned soup (by tensor)",
    "greedy_replacement": "Greedy soup (with replacement)",
    "best_validation": "Best model, chosen on the test set",
    "greedy_validation": "Greedy soup, chosen on the test set",
}


Pair = tuple[float | None, float | None]  # on the test set, and the mean over the shifts
NONE: Pair = (None, None)


@dataclass(frozen=True)
class MethodRow:
    """One method's row of Table 3. Only the paper's numbers are times 100, with `digits` decimals.

    scores, gains: on the test set, and the mean over the shifts. by_set: score on each shift and
    extra set, or None if missing. spread: standard deviations of the scores, if the row is a mean
    over several random orders.
    """

    row: str
    label: str
    scores: Pair
    gains: Pair
    by_set: dict[str, float | None]
    paper: Pair = NONE
    paper_gains: Pair = NONE
    spread: Pair = NONE
    digits: int = 2

    @property
    def ours(self) -> list[str]:
        """Two table cells: our test score and mean over shifts, with standard deviations."""
        pairs = zip(self.scores, self.spread, strict=True)
        return [percent(score) + ("" if std is None else f" ({percent(std)})") for score, std in pairs]

    @property
    def our_gains(self) -> list[str]:
        """Two table cells: our gains over the best individual model, or empty texts."""
        return ["" if gain is None else percent(gain, True) for gain in self.gains]

    @property
    def theirs(self) -> list[str]:
        """Two table cells: the paper's test score and mean over the shifts, or empty texts."""
        return ["" if value is None else f"{value:.{self.digits}f}" for value in self.paper]

    @property
    def their_gains(self) -> list[str]:
        """Two table cells: the paper's gains over its best individual model, or empty texts."""
        return ["" if gain is None else signed(gain) for gain in self.paper_gains]

    @property
    def sets(self) -> list[str]:
        """A table cell for each shift and each extra data set, with our score on it."""
        return list(map(percent, self.by_set.values()))


def label_of(row: str) -> str:
    """Return the printed name of a row, such as "Greedy soup (random order)" of "greedy_random"."""
    if row.startswith("wise_ft_"):
        base, alpha = row.removeprefix("wise_ft_").rsplit("_", 1)
        base = "greedy soup" if base == "greedy" else "best model"
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


def has_paper_scores(numbers: Numbers) -> bool:
    """Return whether the paper's scores, not only its gains, can be compared with the run's."""
    on_imagenet = numbers.config.get("data", {}).get("library") == "imagenet"
    return paper_cell(numbers) is not None or (numbers.has_top_1 and on_imagenet)


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
    scores = (statistics.fmean(tests), statistics.fmean(means) if means else None)
    spread = (statistics.stdev(tests), statistics.stdev(means) if means else None) if len(rows) > 1 else NONE
    gains, best = NONE, numbers.rows.get("best")
    if best and name not in ("best", *ON_TEST):
        gains = _minus(scores, (best.accuracy(numbers.test), best.shift_mean))
    (paper, digits), (paper_best, _) = paper_scores(numbers, name), paper_scores(numbers, "best")
    paper_gains = NONE if name == "best" else _minus(paper, paper_best)
    return MethodRow(name, label_of(name), scores, gains, by_set, paper, paper_gains, spread, digits)


def _minus(a: Pair, b: Pair) -> Pair:
    test, shifts = (None if x is None or y is None else x - y for x, y in zip(a, b, strict=True))
    return test, shifts


def paper_scores(numbers: Numbers, row: str) -> tuple[Pair, int]:
    """Return a row's test score and mean over shifts in the paper, and their number of decimals.

    The authors' learned soup is not in the paper: its score is the one that their code states.
    """
    if numbers.has_top_1 and is_authors_learned(numbers, row):
        return (100 * tables.released_rows()[row]["val"], None), 2
    if numbers.has_top_1:
        return printed(row) or NONE, 2
    cell = paper_cell(numbers)
    test = cell.score(row) if cell else None
    return (test, None), 1


def is_authors_learned(numbers: Numbers, row: str) -> bool:
    """Return whether a row is the learned soup of the authors' code, with its settings."""
    return row == "learned_tensors" and numbers.config.get("protocol") == "released"


# ---- versions of the table; each starts with its header ----


def wide(numbers: Numbers) -> TextTable:
    """Return Table 3 in full: our scores and gains, the paper's, and our score on each data set."""
    columns = _columns(numbers)
    for place, title in enumerate(set_titles(numbers)):
        columns.append((title, [row.sets[place] for row in method_rows(numbers)]))
    return _table(numbers, columns)


def without_sets(numbers: Numbers) -> TextTable:
    """Return Table 3 for print: scores and gains, ours and the paper's."""
    return _table(numbers, _columns(numbers, short=True))


def each_set(numbers: Numbers) -> TextTable:
    return [["Method", *set_titles(numbers)], *([row.label, *row.sets] for row in method_rows(numbers))]


def summary(numbers: Numbers) -> str:
    """Return Table 3 for 80-column terminals: scores and gains in distribution, then under shift."""
    rows = method_rows(numbers)
    titles = [numbers.title(numbers.test), numbers.shifts_heading] if numbers.shifts else [numbers.title(numbers.test)]
    parts = [f"{numbers.score_in_words}. Gain: over the best individual model, in points."]
    for column, title in enumerate(titles):
        head = [title, "score", "gain"]
        cells = [[row.label, row.ours[column], row.our_gains[column]] for row in rows]
        theirs = [[row.theirs[column], row.their_gains[column]] for row in rows]
        if has_paper_scores(numbers) and any(pair[0] for pair in theirs):
            head, cells = [*head, "paper"], [[*ours, pair[0]] for ours, pair in zip(cells, theirs, strict=True)]
        if any(pair[1] for pair in theirs):
            head = [*head, "paper's gain"]
            cells = [[*ours, pair[1]] for ours, pair in zip(cells, theirs, strict=True)]
        parts.append(aligned([head, *cells]))
    return "\n\n".join(parts)


def _columns(numbers: Numbers, short: bool = False) -> list[tuple[str, list[str]]]:
    """Return (header, cells) of each column of Table 3 that contains any number.

    short: with shorter headers, all columns on the test set first, then those on the shifts.
    """
    rows, test = method_rows(numbers), numbers.title(numbers.test)
    cell = paper_cell(numbers)
    titles = {
        "ours": (f"{test} (test)" if numbers.has_top_1 else f"{test}: {numbers.score}", "Dist. shifts"),
        "our_gains": ("Gain: test", "Gain: dist. shifts"),
        "theirs": (f"Paper: {cell.title if cell else 'ImageNet'}", "Paper: dist. shifts"),
        "their_gains": ("Paper's gain: test", "Paper's gain: dist. shifts"),
    }
    if short:
        titles |= {"our_gains": ("Gain", "Gain"), "theirs": ("Paper", "Paper")}
        titles["their_gains"] = ("Paper's gain", "Paper's gain")
    columns: list[tuple[int, str, list[str]]] = []
    for kind, both in titles.items():
        for place, title in enumerate(both):
            cells = [getattr(row, kind)[place] for row in rows]
            shown = bool(numbers.shifts) if place else True
            if shown and any(cells) and (kind != "theirs" or has_paper_scores(numbers)):
                columns.append((place if short else 0, title, cells))
    return [(title, cells) for _, title, cells in sorted(columns, key=lambda column: column[0])]


def _table(numbers: Numbers, columns: list[tuple[str, list[str]]]) -> TextTable:
    whole = [("Method", [row.label for row in method_rows(numbers)]), *columns]
    return [[title for title, _ in whole], *map(list, zip(*(cells for _, cells in whole), strict=True))]


def set_titles(numbers: Numbers) -> list[str]:
    return list(map(numbers.title, [*numbers.shifts, *numbers.extra]))
