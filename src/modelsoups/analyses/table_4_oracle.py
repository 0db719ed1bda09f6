"""The greedy soup against the best model, chosen on the hold-out or on each test set (Table 4)."""

import numpy as np

from modelsoups.analyses.analysis import PAPER, Analysis, Verdicts, compared, counted
from modelsoups.analyses.bench import Bench, Measures, Point
from modelsoups.analyses.choosing import choose, need_holdout, picked
from modelsoups.analyses.members import OWN
from modelsoups.analyses.rows import Rows, Table, column, distinct, having, interval, select
from modelsoups.report.numbers import percent
from modelsoups.soup.coefficients import Ingredient
from modelsoups.stats import paired_tests
from modelsoups.stats.bold_rule import bold, oracle

LABELS = {
    "best": "Best model on hold-out",
    "oracle": "Best model on each test set (oracle)",
    "greedy_ensemble": "Greedy ensemble",
    "greedy": "Greedy soup",
}


def _rows(bench: Bench) -> Rows:
    need_holdout(bench)
    bench = bench.whole()
    members = bench.ingredients(OWN)
    bench.evaluate(members, choosing=True)
    each = {m.id: bench.individual(m) for m in members}
    kinds = {method: _of(bench, members, method) for method in ("best", "greedy_ensemble", "greedy")}
    columns, titles = {}, {}
    for name in bench.tests:
        columns[name], titles[name] = [name], bench.images.dataset(name).title
    if bench.all_shifts:
        columns["mean"], titles["mean"] = bench.shifts, "Mean of shifts"
    marked = {key: bold(_correct(kinds, names)) for key, names in columns.items()}
    rows: Rows = []
    for kind, measures in kinds.items():
        for key, names in columns.items():
            accuracy = float(np.mean([measures[n].accuracy for n in names]))
            row = {"row": kind, "column": key, "title": titles[key]}
            rows.append({**row, "accuracy": accuracy, "bold": kind in marked[key]})
    accuracies = {name: {n: m[n].accuracy for n in bench.tests} for name, m in each.items()}
    best = oracle(accuracies, bench.shifts if bench.all_shifts else [])
    for key, (model, accuracy) in best.items():
        row = {"row": "oracle", "column": key, "title": titles[key]}
        rows.append({**row, "accuracy": accuracy, "model": model})
    for key, names in columns.items():
        correct = _correct(kinds, names)
        pairs = list(zip(correct["greedy"], correct["best"], strict=True))
        value = paired_tests.paired_mean_test(pairs).difference
        estimate = interval((value, *paired_tests.paired_mean_interval(pairs)))
        rows.append({"comparison": f"greedy - best, {key}", "test": estimate})
    return rows


def _correct(kinds: dict[str, Measures], names: list[str]) -> dict[str, list[np.ndarray]]:
    """Return, for each method, a bool array per data set: which images it classifies correctly."""
    return {kind: [m[name].correct_N for name in names] for kind, m in kinds.items()}


def _of(bench: Bench, members: list[Ingredient], method: str) -> Measures:
    soup = choose(bench, members, method)
    chosen = picked(soup, members)
    if method == "best":
        return bench.individual(chosen[0])
    if soup.space == "logits":
        return bench.ensemble(chosen)
    return bench.measure([Point.of(soup, chosen)], "table 4")[0]


def _verdicts(rows: Rows) -> Verdicts:
    shown = having(rows, "row")
    greedy, best = (select(shown, row=kind) for kind in ("greedy", "oracle"))
    found = []
    for row in greedy:
        where = "the mean of shifts" if row["column"] == "mean" else row["title"]
        text = f"On {where} the greedy soup is better than the model that is best on the hold-out"
        found += compared(rows, f"greedy - best, {row['column']}", "test", text, "Table 4")
    accuracy = dict(zip(column(best, "column"), column(best, "accuracy"), strict=True))
    above = [r["accuracy"] > accuracy[r["column"]] for r in greedy if r["column"] != "mean"]
    text = "The greedy soup is better than the oracle (the best model on each test set) on most test sets"
    return [*found, counted(text, "Table 4", above)]


def _table(rows: Rows) -> Table:
    rows = having(rows, "row")
    titles = dict(zip(column(rows, "column"), column(rows, "title"), strict=True))
    table = [["Method (*: not significantly below the best)", *titles.values()]]
    for kind, label in LABELS.items():
        cells = dict.fromkeys(distinct(rows, "column"), "")
        for row in select(rows, row=kind):
            cells[row["column"]] = percent(row["accuracy"]) + ("*" if row.get("bold") else "")
        table.append([label, *cells.values()])
    return table


TABLE_4 = Analysis(**PAPER["table_4"], rows=_rows, judge=_verdicts, table=_table)
