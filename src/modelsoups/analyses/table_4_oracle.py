"""The greedy soup against the best model, chosen on the hold-out or on each test set (Tables 1, 4, C.1)."""

import functools

import numpy as np
from torch import Tensor

from modelsoups.analyses.analysis import PAPER, Analysis, Verdicts, compared, counted
from modelsoups.analyses.bench import Bench, logits_on
from modelsoups.analyses.choosing import choose, need_holdout, picked
from modelsoups.analyses.points import Measures, Point
from modelsoups.analyses.rows import Rows, Table, column, distinct, having, interval, select
from modelsoups.data.imagenet import relabelled
from modelsoups.published.tables import paper_rows
from modelsoups.report.numbers import percent
from modelsoups.soup.coefficients import Ingredient
from modelsoups.soup.methods import INDIVIDUAL
from modelsoups.stats import paired_tests, scores
from modelsoups.stats.bold_rule import bold, oracle

LABELS = {
    "best": "Best model on hold-out",
    "oracle": "Best model on each test set (oracle)",
    "greedy_ensemble": "Greedy ensemble",
    "greedy": "Greedy soup",
}
METHODS = ("best", "greedy_ensemble", "greedy")
PAPER_COLUMNS = {  # column of the paper's Table 4 -> column here; for its first one, ImageNet, see `_paper`
    "imagenet_real": "real",
    "imagenet_multilabel": "multilabel",
    "imagenet_v2": "v2",
    "imagenet_r": "r",
    "imagenet_sketch": "sketch",
    "objectnet": "objectnet",
    "imagenet_a": "a",
    "shifts": "mean",
}


def _rows(bench: Bench) -> Rows:
    need_holdout(bench)
    bench = bench.whole()
    individuals, mixed = bench.contenders()
    bench.evaluate([*individuals, *mixed], choosing=True)
    each = {m.id: bench.individual(m) for m in individuals}
    members = {method: individuals if method in INDIVIDUAL else mixed for method in METHODS}
    kinds = {method: _of(bench, members[method], method) for method in METHODS}
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
    if bench.experiment.config.data.library == "imagenet":
        rows.append({"paper": "ImageNet"})  # so that the paper's scores stand below ours
    return rows + _relabelled(bench, members)


def _relabelled(bench: Bench, members: dict[str, list[Ingredient]]) -> Rows:
    """Return the rows of sets with other labels for the test set's images (ReaL, multilabel)."""
    sets = [bench.experiment.sets[name] for name in bench.experiment.sets.relabelled()]
    if not sets:
        return []
    made = {method: _logits(bench, members[method], method) for method in METHODS}
    best: dict[str, tuple[float, str]] = {}
    for member in members["best"]:
        logits_NC = bench.logits(member, bench.test).logits_NC
        for name, dataset in zip(bench.experiment.sets.relabelled(), sets, strict=True):
            accuracy = _average(*relabelled.score(dataset, logits_NC))
            best[name] = max(best.get(name, (-1.0, "")), (accuracy, member.id), key=lambda found: found[0])
    rows: Rows = []
    for name, dataset in zip(bench.experiment.sets.relabelled(), sets, strict=True):
        scored = {method: relabelled.score(dataset, logits_NC) for method, logits_NC in made.items()}
        equal = all(weight_N is None for _, weight_N in scored.values())  # the tests are for equal weights
        marked = bold({method: [correct_N] for method, (correct_N, _) in scored.items()}) if equal else set()
        where = {"column": name, "title": dataset.title}
        for method, found in scored.items():
            rows.append({"row": method, **where, "accuracy": _average(*found), "bold": method in marked})
        rows.append({"row": "oracle", **where, "accuracy": best[name][0], "model": best[name][1]})
    return rows


def _average(correct_N: np.ndarray, weight_N: np.ndarray | None) -> float:
    return float(correct_N.mean() if weight_N is None else correct_N @ weight_N)


def _logits(bench: Bench, members: list[Ingredient], method: str) -> Tensor:
    """Return a method's logits on the test set."""
    soup = choose(bench, members, method)
    chosen = picked(soup, members)
    if soup.space == "logits":
        return scores.ensemble([bench.logits(i, bench.test).logits_NC for i in chosen])
    return logits_on(bench, Point.of(soup, chosen))(bench.test).logits_NC


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


def _better(rows: Rows, source: str) -> Verdicts:
    """Return for each column whether the greedy soup is better than the best model on the hold-out."""
    found = []
    for row in select(having(rows, "row"), row="greedy"):
        where = "the mean of shifts" if row["column"] == "mean" else row["title"]
        text = f"On {where} the greedy soup is better than the model that is best on the hold-out"
        found += compared(rows, f"greedy - best, {row['column']}", "test", text, source)
    return found


def _verdicts(rows: Rows) -> Verdicts:
    shown, found = having(rows, "row"), _better(rows, "Table 4")
    greedy, best = (select(shown, row=kind) for kind in ("greedy", "oracle"))
    accuracy = dict(zip(column(best, "column"), column(best, "accuracy"), strict=True))
    own = {r["comparison"].removeprefix("greedy - best, ") for r in having(rows, "comparison")} - {"mean"}
    above = [r["accuracy"] > accuracy[r["column"]] for r in greedy if r["column"] in own]  # sets with own images
    text = "The greedy soup is better than the oracle (the best model on each test set) on most test sets"
    return [*found, counted(text, "Table 4", above)]


def _table(rows: Rows, name: str) -> Table:
    """Return the table: a row for each method and, if the data are ImageNet, those of the paper's table `name`."""
    beside, rows = having(rows, "paper"), having(rows, "row")
    titles = dict(zip(column(rows, "column"), column(rows, "title"), strict=True))
    table = [["Method (*: not significantly below the best)", *titles.values()]]
    for kind, label in LABELS.items():
        cells = dict.fromkeys(distinct(rows, "column"), "")
        for row in select(rows, row=kind):
            cells[row["column"]] = percent(row["accuracy"]) + ("*" if row.get("bold") else "")
        table.append([label, *cells.values()])
    return table + (_paper(name, list(titles)) if beside else [])


def _table_1(rows: Rows) -> Table:
    """Return Table 1: of Table 4, the oracle and the greedy soup on the test set and the mean of shifts."""
    beside, rows = having(rows, "paper"), having(rows, "row")
    columns = [name for name in distinct(rows, "column") if name in (rows[0]["column"], "mean")]
    titles = {row["column"]: row["title"] for row in rows}
    table = [["Method", *(titles[name] for name in columns)]]
    for kind, label in (("oracle", "Best model in hyperparameter search"), ("greedy", "Greedy soup")):
        found = [select(rows, row=kind, column=name)[0] for name in columns]
        table.append([label, *(percent(row["accuracy"]) for row in found)])
    return table + (_paper("table_1", columns) if beside else [])


def _paper(name: str, columns: list[str]) -> Table:
    """Return the rows of a table of the paper, with an empty cell where it has no number.

    columns: the columns of our table; the first is the test set, next to the paper's ImageNet.
    """
    names = [columns[0], *PAPER_COLUMNS.values()]
    if name == "table_1":  # two columns
        names = [columns[0], "mean"]
    table = []
    for label, numbers in paper_rows(name).items():
        there = dict(zip(names, numbers, strict=True))
        cells = ["" if there.get(key) is None else f"{there[key]:.2f}" for key in columns]
        table.append([f"Paper: {label}", *cells])
    return table


TABLE_1 = Analysis(**PAPER["table_1"], rows=_rows, table=_table_1)
TABLE_4 = Analysis(**PAPER["table_4"], rows=_rows, judge=_verdicts, table=functools.partial(_table, name="table_4"))
TABLE_C1 = Analysis(
    **PAPER["table_C1"],
    rows=_rows,
    judge=functools.partial(_better, source="Table C.1"),
    table=functools.partial(_table, name="table_c1"),
)
