"""WiSE-FT curves of individual models and of soups (Figure D.1)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from modelsoups.analyses.analysis import PAPER, Analysis, Verdicts, compared, comparison
from modelsoups.analyses.bench import Bench
from modelsoups.analyses.choosing import choose, need_holdout, picked, renumbered
from modelsoups.analyses.members import OWN, Unavailable
from modelsoups.analyses.points import Measures, Point, correctness
from modelsoups.analyses.rows import Rows, column, distinct, having, interval, select
from modelsoups.report.plotting import INK, LABELS, NAMES, SPECIAL, legend, panels_of
from modelsoups.soup.coefficients import Ingredient
from modelsoups.stats import intervals

SOUPS = ("uniform", "greedy")
START = "initialization"
TITLES = {OWN: "random search, LP", "standard_zs": "standard grid, zero-shot"}


def _rows(bench: Bench) -> Rows:
    need_holdout(bench)
    if not bench.all_shifts:
        raise Unavailable("the analysis needs all data sets of data.shifts: run modelsoups prepare")
    rows: Rows = []
    for pool in TITLES:
        if pool in bench.runs:
            rows += _of_pool(bench, pool)
    return rows


def _of_pool(bench: Bench, pool: str) -> Rows:
    start = bench.start(pool)
    members = renumbered(bench.ingredients(pool))
    bench.evaluate([start, *members], choosing=True)
    greedy = choose(bench, members, "greedy")
    ends = {m.id: Point((m,), (1.0,)) for m in members}
    ends["uniform"] = Point.uniform(members)
    ends["greedy"] = Point.of(greedy, picked(greedy, members))
    alphas = sorted({1.0, *(bench.settings.wise_ft or bench.settings.alphas)} - {0.0})
    keys = [(name, alpha) for name in ends for alpha in alphas]
    points = [_towards(start, ends[name], alpha) for name, alpha in keys]
    found = dict(zip(keys, bench.measure(points, f"WiSE-FT, {pool}"), strict=True))
    rates = {m.id: m.recipe.lr if m.recipe else None for m in members}
    rows: Rows = []
    for (name, alpha), measures in found.items():
        row = {"pool": pool, "model": name, "alpha": alpha, "lr": rates.get(name)}
        rows.append({**row, **bench.accuracies(measures)})
    row = {"pool": pool, "model": START, "alpha": 0.0, "lr": None}
    rows.append({**row, **bench.accuracies(bench.individual(start))})
    singles = [m for (name, _), m in found.items() if name in rates]
    middle = min(alphas, key=lambda alpha: abs(alpha - 0.5))
    for name in SOUPS:
        soup = found[name, max(alphas)]
        beyond = _beyond(bench, soup, singles)
        rows.append({"pool": pool, "comparison": f"beyond {name}", "test": beyond})
        pairs = [(found[name, middle], soup)]
        rows.append(comparison(f"wise {name}", bench, pairs, pool=pool))
    return rows


def _beyond(bench: Bench, soup: Measures, others: list[Measures]) -> dict[str, float]:
    """Return the smallest lead of the soup over the other models, with a bootstrap interval.

    A lead is the accuracy difference on the test set or on the mean of shifts, whichever is larger.
    It is negative if the other model is better on both. Noise biases the smallest lead downwards.
    """

    def ahead(accuracies_M: Sequence[np.ndarray]) -> float:
        axes = (accuracies_M[0], np.mean(accuracies_M[1:], axis=0))
        return float(np.min(np.max([axis[0] - axis[1:] for axis in axes], axis=0)))

    return interval(intervals.bootstrap(correctness([soup, *others], bench.tests), ahead))


def _towards(start: Ingredient, end: Point, alpha: float) -> Point:
    """Return the WiSE-FT model with weights (1 - alpha) * start + alpha * end."""
    if alpha == 1:
        return end
    scaled = [alpha * c for c in end.coefficients]
    return Point((start, *end.ingredients), (1 - alpha, *scaled))


def _verdicts(rows: Rows) -> Verdicts:
    found = []
    for pool in distinct(rows, "pool"):
        part = select(rows, pool=pool)
        here = having(part, "model")
        singles = [row for row in here if row["model"] not in (*SOUPS, START)]
        for name in SOUPS:
            (soup,) = select(here, model=name, alpha=1)
            above = sum(row["test"] >= soup["test"] and row["shifts"] >= soup["shifts"] for row in singles)
            points = f"{above} of {len(singles)} points are no worse on both axes; shown: distance to the nearest"
            text = f"The {name} soup lies beyond the WiSE-FT curves of all individual models ({pool}; {points})"
            found += compared(part, f"beyond {name}", "test", text, "Figure D.1")
            text = f"WiSE-FT of the {name} soup (alpha 0.5) is better under shift than the soup ({pool})"
            found += compared(part, f"wise {name}", "shifts", text, "Figure D.1")
    return found


def _draw(rows: Rows) -> Figure:
    pools = distinct(rows, "pool")
    figure, panels = panels_of(len(pools), 3.6, 3.2)
    for panel, pool in zip(panels, pools, strict=True):
        here = having(select(rows, pool=pool), "model")
        start = select(here, model=START)
        label: str | None = "individual models, towards the initialization"
        for name in distinct(here, "model"):
            line = sorted(start + select(here, model=name), key=lambda row: row["alpha"])
            if name in SOUPS:
                _draw_soup(panel, name, line)
            elif name != START:
                look = {"color": "grey", "alpha": 0.5, "linewidth": 0.8, "marker": ".", "markersize": 3}
                panel.plot(*_place(line), "-", label=label, **look)
                label = None  # a single legend entry for all of them
        panel.plot(*_place(start), "*", color=INK, markersize=9, label=START)
        panel.set(title=TITLES.get(pool, pool), xlabel=LABELS["test"], ylabel=LABELS["shifts"])
    legend(figure, panels[0])
    return figure


def _draw_soup(panel: Axes, name: str, line: Rows) -> None:
    marker, colour = SPECIAL[name]
    panel.plot(*_place(line), "-", color=colour, linewidth=1.3, marker=".", markersize=4, zorder=3)
    look: dict[str, Any] = {"color": colour, "markersize": 8, "markeredgecolor": "white", "zorder": 4}
    panel.plot(*_place(line[-1:]), marker, label=NAMES[name], **look)


def _place(rows: Rows) -> tuple[list[float], list[float]]:
    return column(rows, "test", 100), column(rows, "shifts", 100)


WISE_FT = Analysis(**PAPER["figure_D1"], rows=_rows, judge=_verdicts, draw=_draw)
