"""Shared code of Tables L.1 to L.3: accuracies of models and soups next to the paper's numbers."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from modelsoups.analyses.bench import Bench
from modelsoups.analyses.members import Unavailable
from modelsoups.analyses.points import Measures, Point
from modelsoups.analyses.rows import Rows, Table, having
from modelsoups.published.tables import paper_rows
from modelsoups.report.numbers import percent

Line = Callable[[], Measures]  # measures the models; raises Unavailable
Recipe = Mapping[str, Any]  # hyperparameters, to find a model that has them


def line(bench: Bench, kind: str, *recipes: Recipe) -> Line:
    """Return a function that evaluates the model, soup or ensemble of these hyperparameters."""
    return functools.partial(_measured, bench, kind, recipes)


def _measured(bench: Bench, kind: str, recipes: tuple[Recipe, ...]) -> Measures:
    models = [bench.find("lp", **recipe).ingredient for recipe in recipes]
    if kind == "soup":
        return bench.measure([Point.uniform(models)], "appendix L")[0]
    bench.evaluate(models)
    return bench.ensemble(models) if kind == "ensemble" else bench.individual(models[0])


def made(bench: Bench, lines: Mapping[str, Line], rate: int, lr: float) -> tuple[Rows, dict[str, Measures]]:
    """Return a data row for each line of the table, and the measurements by the line's label.

    A row has our accuracies, or why there are none, and the paper's. rate: which of the paper's two
    learning rates (0: the larger). Raises Unavailable if the models of every line are missing.
    """
    rows: Rows = []
    found: dict[str, Measures] = {}
    for label, make in lines.items():
        test, shifts = paper_rows("appendix_l")[label][rate]
        try:
            found[label] = make()
            ours: dict[str, Any] = {**bench.accuracies(found[label])}
        except Unavailable as error:
            ours = {"missing": str(error)}
        rows.append({"row": label, "lr": lr, **ours, "paper_test": test, "paper_shifts": shifts})
    if not found:
        raise Unavailable(str(rows[0]["missing"]))
    return rows, found


def beside_paper(rows: Rows) -> Table:
    """Return the table as texts: for each data row, our accuracies and the paper's, in percent."""
    table = [["Model or soup", "Learning rate", "Test", "Shifts", "Paper: ImageNet", "Paper: shifts"]]
    for r in having(rows, "row"):
        ours = [percent(r["test"]), percent(r["shifts"])] if "test" in r else ["no model", ""]
        paper = [f"{r['paper_test']:.2f}", f"{r['paper_shifts']:.2f}"]
        table.append([r["row"], f"{r['lr']:.1e}", *ours, *paper])
    return table
