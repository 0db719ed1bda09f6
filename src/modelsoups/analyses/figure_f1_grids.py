"""Hyperparameter grids: soup of two endpoints against the best model between them (Figure F.1)."""

import contextlib
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from modelsoups.analyses.analysis import PAPER, Analysis, Verdicts, counted
from modelsoups.analyses.bench import Bench
from modelsoups.analyses.members import Member, Unavailable
from modelsoups.analyses.points import between
from modelsoups.analyses.rows import Rows, column, distinct, select
from modelsoups.report.plotting import panels_of

OPTIMIZERS = ("sgd", "rmsprop", "adam", "adamw")
AUGMENTATIONS = ("minimal", "medium", "strong")
RATES = ("standard_lp", "extreme_lp")  # pools with the grid of learning rates


def _grids(bench: Bench) -> Mapping[str, list[tuple[str, Member]]]:
    """Return by hyperparameter: (value, model) of models that differ only in it, if two or more."""
    rate = bench.settings.rates[0]
    wanted: list[tuple[str, str, dict[str, Any]]] = []
    for name in OPTIMIZERS:
        lr = {} if name == "sgd" else {"lr": rate}  # any rate for SGD, which needs a larger one
        wanted.append(("optimizer", name, {"aug": "minimal", "optimizer": name, **lr}))
    for aug in AUGMENTATIONS:
        wanted.append(("augmentation", aug, {"lr": rate, "aug": aug}))
    members = bench.pool(*filter(bench.runs.__contains__, RATES))
    for rate in sorted({m.lr for m in members}):
        label = f"{rate:.1e}".replace("e-0", "e-").replace(".0e", "e")
        wanted.append(("learning rate", label, {"lr": rate, "aug": "medium"}))
    grids: dict[str, list[tuple[str, Member]]] = {}
    for grid, label, recipe in wanted:
        with contextlib.suppress(Unavailable):
            grids.setdefault(grid, []).append((label, bench.find("lp", **recipe)))
    found = {grid: models for grid, models in grids.items() if len(models) > 1}
    if not found:
        raise Unavailable("the analysis needs two models that differ only in optimizer, augmentation or learning rate")
    return found


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


def _verdicts(rows: Rows) -> Verdicts:
    found = []
    for grid in distinct(rows, "grid"):
        text = "Averaging two models at the ends of a hyperparameter range mostly beats the best model of the range"
        better = [gain > 0 for gain in column(select(rows, grid=grid), "gain")]
        found.append(counted(f"{text} ({grid})", "Figure F.1", better))
    return found


def _draw(rows: Rows) -> Figure:
    """Draw one matrix per grid; a cell shows the accuracy gain of one pair of endpoints."""
    names = distinct(rows, "grid")
    figure, panels = panels_of(len(names), 2.6, 2.6)
    gains = np.abs(column(rows, "gain", 100))
    most = max(0.5, float(np.minimum(gains, 5.0).max()))
    for panel, name in zip(panels, names, strict=True):
        shades = _draw_grid(panel, select(rows, grid=name), most)
        panel.set(title=name, xlabel="one endpoint", ylabel="the other endpoint")
        panel.grid(False)
    label = "average of both endpoints minus\nbest model on the path (points)"
    figure.colorbar(shades, ax=panels, label=label, shrink=0.9)
    return figure


def _draw_grid(panel: Axes, rows: Rows, most: float) -> Any:
    """Draw one grid's matrix, with colours from -most to most (points), and return the image."""
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


GRIDS = Analysis(**PAPER["figure_F1"], rows=_rows, judge=_verdicts, draw=_draw)
