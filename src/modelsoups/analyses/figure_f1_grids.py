"""One-dimensional grids: the average of the ends against the best model between (Figure F.1)."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from modelsoups.analyses.analysis import Analysis, counted
from modelsoups.analyses.bench import Bench, between
from modelsoups.analyses.members import Member, Unavailable
from modelsoups.analyses.rows import Rows, column, distinct, select
from modelsoups.analyses.style import panels_of
from modelsoups.report.claims import Verdict

OPTIMIZERS = ("sgd", "rmsprop", "adam", "adamw")
AUGMENTATIONS = ("minimal", "medium", "strong")
RATES = ("standard_lp", "extreme_lp")  # pools with the grid of learning rates


def _grids(bench: Bench) -> Mapping[str, list[tuple[str, Member]]]:
    """The labelled models of each grid in order; a grid needs two models."""
    grids = {
        "optimizer": {name: _optimizer(bench, name) for name in OPTIMIZERS},
        "augmentation": {aug: {"lr": bench.settings.rates[0], "aug": aug} for aug in AUGMENTATIONS},
        "learning rate": {_short(lr): {"lr": lr, "aug": "medium"} for lr in _rates(bench)},
    }
    found = {}
    for grid, wanted in grids.items():
        models = []
        for label, recipe in wanted.items():
            try:
                models.append((label, bench.find("lp", **recipe)))
            except Unavailable:
                continue
        if len(models) > 1:
            found[grid] = models
    if not found:
        raise Unavailable("no pool has two models that differ in optimizer, augmentation or learning rate alone")
    return found


def _optimizer(bench: Bench, name: str) -> dict[str, Any]:
    """At the first rate of analyse.rates; SGD at any, since it needs a larger one."""
    recipe = {"aug": "minimal", "optimizer": name}
    return recipe if name == "sgd" else {"lr": bench.settings.rates[0], **recipe}


def _rates(bench: Bench) -> list[float]:
    members = bench.pool(*(name for name in RATES if name in bench.runs))
    return sorted({m.lr for m in members})


def _short(lr: float) -> str:
    return f"{lr:.1e}".replace("e-0", "e-").replace(".0e", "e")


def _rows(bench: Bench) -> Rows:
    grids = _grids(bench)
    bench.evaluate([m.ingredient for models in grids.values() for _, m in models])
    spans, points = [], []
    for grid, models in grids.items():
        for i, j in itertools.combinations(range(len(models)), 2):
            spans.append((grid, models[i : j + 1]))
            points.append(between(models[i][1].ingredient, models[j][1].ingredient))
    rows: Rows = []
    for (grid, span), soup in zip(spans, bench.measure(points, "figure F.1"), strict=True):
        best = max(bench.individual(m.ingredient)[bench.test].accuracy for _, m in span)
        average = soup[bench.test].accuracy
        row = {"grid": grid, "a": span[0][0], "b": span[-1][0]}
        rows.append({**row, "average": average, "best": best, "gain": average - best})
    return rows


def _verdicts(rows: Rows) -> list[Verdict]:
    found = []
    for grid in distinct(rows, "grid"):
        text = (
            "The average of the endpoints is better than the best individual model between them, "
            f"for most grids ({grid})"
        )
        better = [gain > 0 for gain in column(select(rows, grid=grid), "gain")]
        found.append(counted(text, "Figure F.1", better))
    return found


def _draw(rows: Rows) -> Figure:
    """A square a grid: colour and number are the points that the average of the endpoints gains."""
    names = distinct(rows, "grid")
    figure, panels = panels_of(len(names), 2.6, 2.6)
    gains = np.abs(column(rows, "gain", 100))
    most = max(0.5, float(np.minimum(gains, 5.0).max()))
    for panel, name in zip(panels, names, strict=True):
        shades = _draw_grid(panel, select(rows, grid=name), most)
        panel.set_title(name)
        panel.set_xlabel("one endpoint")
        panel.set_ylabel("the other endpoint")
        panel.grid(False)
    label = "average of the endpoints less\nbest model between (points)"
    figure.colorbar(shades, ax=panels, label=label, shrink=0.7)
    return figure


def _draw_grid(panel: Axes, rows: Rows, most: float) -> Any:
    """The gains of one grid; its colours span -most to most."""
    labels = list(dict.fromkeys([*column(rows, "a"), *column(rows, "b")]))
    z = np.full((len(labels), len(labels)), np.nan)
    for row in rows:
        z[labels.index(row["b"]), labels.index(row["a"])] = 100 * row["gain"]
    shades = panel.imshow(z, cmap="RdBu", vmin=-most, vmax=most, origin="lower")
    for (i, j), value in np.ndenumerate(z):
        if not np.isnan(value):
            text = f"{value:+.1f}" if abs(value) < 9.95 else f"{value:+.0f}"
            colour = "white" if abs(value) > 0.6 * most else "black"
            panel.text(j, i, text, ha="center", va="center", fontsize=6, color=colour)
    panel.set_xticks(range(len(labels)), labels, rotation=45, fontsize=6)
    panel.set_yticks(range(len(labels)), labels, fontsize=6)
    return shades


GRIDS = Analysis(
    "figure_F1",
    "Figure F.1. One-dimensional grids",
    "appendix F",
    "The average of the endpoints of a grid often outperforms the best individual model in it, except where one "
    "was fine-tuned with too large a learning rate.",
    _rows,
    _verdicts,
    draw=_draw,
)
