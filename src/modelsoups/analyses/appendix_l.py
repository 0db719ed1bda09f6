"""What the tables of appendix L share: lines of models beside the paper's numbers."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from modelsoups.analyses.bench import Bench, Measures, Point
from modelsoups.analyses.members import Unavailable
from modelsoups.analyses.rows import Rows, Table, having
from modelsoups.published.tables import paper_rows
from modelsoups.report.numbers import percent

Line = Callable[[], Measures]  # raises Unavailable
Recipe = Mapping[str, Any]  # the hyperparameters by which a model is found


def line(bench: Bench, kind: str, *recipes: Recipe) -> Line:
    """An individual, or the soup or ensemble of models. kind: individual, soup or ensemble."""
    return functools.partial(_measured, bench, kind, recipes)


def _measured(bench: Bench, kind: str, recipes: tuple[Recipe, ...]) -> Measures:
    models = [bench.find("lp", **recipe).ingredient for recipe in recipes]
    if kind == "soup":
        return bench.measure([Point.uniform(models)], "appendix L")[0]
    bench.evaluate(models)
    return bench.ensemble(models) if kind == "ensemble" else bench.individual(models[0])


def made(bench: Bench, lines: Mapping[str, Line], rate: int, lr: float) -> tuple[Rows, dict[str, Measures]]:
    """A row for each line, beside the paper's numbers, or with the reason why it cannot be made.

    rate: 0 for the larger of the paper's learning rates. Unavailable where no line can be made.
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
    """This run's accuracies beside the paper's, in percent."""
    table = [["Row", "Learning rate", "Test", "Shifts", "Paper: ImageNet", "Paper: shifts"]]
    for r in having(rows, "row"):
        ours = [percent(r["test"]), percent(r["shifts"])] if "test" in r else ["not made", ""]
        paper = [f"{r['paper_test']:.2f}", f"{r['paper_shifts']:.2f}"]
        table.append([r["row"], f"{r['lr']:.1e}", *ours, *paper])
    return table
