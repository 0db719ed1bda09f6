"""Table 3 on the page: scores and gains, ours beside the paper's, with tooltips and groups of rows."""

from modelsoups.report import beside_published, explained, table_3
from modelsoups.report.numbers import MEAN, ON_TEST, Numbers, RowResults, interval, percent
from modelsoups.report.sections import Cell, Section, Table, origin
from modelsoups.report.table_3 import MethodRow

PAPER = "Wortsman et al. 2022, Table 3 (CLIP ViT-B/32 on ImageNet)"
Cells = list[Cell | str]
Columns = dict[str, list[Cell | str]]  # header -> a cell for each row


def section(numbers: Numbers) -> Section:
    """Return the section with Table 3: rows in groups, the best of each group first."""
    methods = _ordered(numbers)
    places = [(numbers.title(numbers.test), _columns(numbers, methods, 0))]
    if numbers.shifts:
        places.append((numbers.shifts_heading, _columns(numbers, methods, 1)))
    head, spans = ["Method"], [("", 1)]
    columns: list[Cells] = [[Cell(m.label, explained.method(m.row)) for m in methods]]
    for title, found in places:
        head += found
        columns += found.values()
        spans.append((title, len(found)))
    head, spans = [*head, "Models run"], [*spans, ("", 1)]
    columns.append([str(numbers.rows[m.row].inference) if m.row in numbers.rows else "1" for m in methods])
    rows = [list(row) for row in zip(*columns, strict=True)]
    titles = [explained.group(method.row) for method in methods]
    parts = [(title, titles.count(title)) for title in dict.fromkeys(titles)]
    table = Table("table_3", head, rows, _caption(numbers), spans, file=False, parts=parts)
    if numbers.has_top_1:
        sentence = "Every method's score and its gain over the best individual model; the best of a column is bold."
        return Section("Table 3", sentence, [table])
    return Section("Scores", f"{numbers.score_in_words}, by method.", [table])


def _ordered(numbers: Numbers) -> list[MethodRow]:
    """Return the rows by group and, within a group, by falling score on the test set."""
    groups = list(explained.GROUPS)
    rows = table_3.method_rows(numbers)
    return sorted(rows, key=lambda row: (groups.index(explained.group(row.row)), -(row.scores[0] or 0.0)))


def _columns(numbers: Numbers, methods: list[MethodRow], place: int) -> Columns:
    """Return the columns on the test set (place 0), or on the mean over the shifts (1)."""
    on = MEAN if place else numbers.test
    fair = [m.scores[place] for m in methods if m.row not in ON_TEST]
    highest = max((score for score in fair if score is not None), default=None)
    columns: Columns = {"Score": [], "Gain": []}
    for method in methods:
        (score,) = accuracies(numbers, method, [on], [method.ours[place]])
        best = highest is not None and method.scores[place] == highest
        columns["Score"].append(Cell(score.text, score.tip, "best" if best else ""))
        columns["Gain"].append(_gain(numbers, method, place, on))
    theirs = [Cell(m.theirs[place], _source(numbers, m.row) if m.theirs[place] else "") for m in methods]
    if table_3.has_paper_scores(numbers) and any(cell.text for cell in theirs):
        columns["Paper's score"] = list(theirs)
    gains = [Cell(m.their_gains[place], _source(numbers, m.row) if m.their_gains[place] else "") for m in methods]
    if any(cell.text for cell in gains):
        columns["Paper's gain"] = list(gains)
    return columns


def _gain(numbers: Numbers, method: MethodRow, place: int, on: str) -> Cell:
    """Return a cell with a row's gain over the best individual model; its tooltip: the test."""
    made_by = origin(numbers.provenance, method.row)
    if d := numbers.difference(method.row, "best", on):
        return Cell(percent(d.value, True), f"95% interval {interval(d)}.\n{_tested(numbers, on)}\n{made_by}")
    text = method.our_gains[place]
    return Cell(text, f"Not tested.\n{made_by}" if text else "")


def _tested(numbers: Numbers, on: str) -> str:
    """Return how a difference was tested, and on how many examples."""
    names = numbers.available_shifts if on == MEAN else [on]
    n = sum(s.n for s in numbers.sets if s.name in names)
    paired = f"paired by {numbers.unit.removesuffix('s')}, n = {n:,}"
    exact = "McNemar's exact test" if on != MEAN else "Permutation test"
    return f"{exact if numbers.has_top_1 else 'Paired bootstrap'}, {paired}."


def accuracy_cell(numbers: Numbers, row: RowResults, dataset: str) -> Cell:
    """Return a table cell with a score; its tooltip: counts, 95% interval and commit."""
    result = row.mean if dataset == MEAN else row.results.get(dataset)
    if result is None:
        return Cell(percent(None))
    tip = f"{result.correct:,} of {result.n:,} {numbers.unit}. " if result.n and result.correct else ""
    if result.n and not numbers.has_top_1 and not result.correct:
        tip = f"{numbers.score} on {result.n:,} {numbers.unit}. "
    if dataset == MEAN:
        tip = f"unweighted {numbers.shifts_title}. " if len(numbers.shifts) > 1 else ""
    tip += f"95% interval {percent(result.low)} to {percent(result.high)}. "
    tip += f"\nresults.jsonl: {row.name} on {dataset}.\n{origin(numbers.provenance, row.name)}"
    return Cell(percent(result.accuracy), tip)


def accuracies(numbers: Numbers, method: MethodRow, sets: list[str], texts: list[str]) -> list[Cell]:
    """Return a cell per data set: a method's score, or without a row its text in `texts`."""
    if row := numbers.rows.get(method.row):
        return [accuracy_cell(numbers, row, name) for name in sets]
    tip = f"Mean over random orders, one row each in results.jsonl.\n{origin(numbers.provenance)}"
    return [Cell(text, tip) for text in texts]


def _caption(numbers: Numbers) -> str:
    """Return what the numbers of Table 3 are and what they were chosen on."""
    paper = ""
    if numbers.has_top_1:
        theirs = "numbers" if table_3.has_paper_scores(numbers) else "gains"
        paper = f" The paper's {theirs} are for CLIP ViT-B/32 on ImageNet{beside_published.how_to_compare(numbers)}."
    elif cell := table_3.paper_cell(numbers):
        paper = f" The paper's numbers are for {cell.title} (Table J.1)."
    chosen = "Everything was chosen on the hold-out, before any test set was evaluated."
    if numbers.chosen_on_test:
        chosen = "Everything was chosen on the test set itself."
    elif any(name in numbers.rows for name in ON_TEST):
        chosen = f"Except for the rows chosen on the test set, e{chosen[1:]}"
    return (
        f"{numbers.score_in_words}. Gain: the score minus the best individual model's, in points. In parentheses: "
        f"standard deviation over random orders. Models run: forward passes for each "
        f"{numbers.unit.removesuffix('s')}. {chosen}{paper}"
    )


def _source(numbers: Numbers, row: str) -> str:
    """Return where the paper prints the numbers that stand beside the run's."""
    if table_3.is_authors_learned(numbers, row):
        return "not in the paper: a comment in the authors' learned_bylayer.py"
    cell = table_3.paper_cell(numbers)
    return PAPER if cell is None else f"Wortsman et al. 2022, Table J.1 ({cell.title})"
