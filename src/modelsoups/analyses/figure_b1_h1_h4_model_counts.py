"""Accuracy against the number of models, added in random orders (Figures B.1 and H.1 to H.4)."""

import functools
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from modelsoups.analyses.analysis import PAPER, Analysis, comparison
from modelsoups.analyses.bench import Bench
from modelsoups.analyses.choosing import as_listed, choose, need_holdout, picked, renumbered
from modelsoups.analyses.members import OWN
from modelsoups.analyses.points import Measures, Point
from modelsoups.analyses.rows import Rows, column, distinct, having, means_by_count, measured_on, select
from modelsoups.experiment.soups import CURVE
from modelsoups.report.plotting import LABELS, NAMES, SPECIAL, count_axis, legend, panels_of
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.soup.methods.greedy import random_order

CHOSEN = ("best", "greedy", "greedy_ensemble")  # others use all models
COMPARED = (("greedy", "best"), ("greedy", "uniform"), ("ensemble", "greedy"), ("greedy", "ensemble"))
NEARLY_ALL = 0.8  # fraction of the models above which only the full number is measured
FAR = 6.0  # points of accuracy; a longer axis would hide differences of one point
POOLS = {"figure_B1": (OWN,), "figure_H1": ("standard_lp",), "figure_H2": ("standard_lp", "extreme_lp")}
POOLS |= {"figure_H3": ("standard_zs",), "figure_H4": ("standard_zs", "extreme_zs")}
Task = tuple[Ingredient, ...]


def _rows(bench: Bench, pools: tuple[str, ...]) -> Rows:
    need_holdout(bench)
    members = bench.ingredients(*pools)
    if len(pools) > 1:  # the paper's extreme grids contain the initialization (J.2.1)
        members.append(bench.start(pools[0]))
    members = renumbered(members)
    bench.evaluate(members, choosing=True)
    counts = [k for k in CURVE if k <= NEARLY_ALL * len(members)]
    tasks: dict[tuple[int, int], Task] = {}
    for order in range(bench.settings.orders):
        shuffled = [members[i] for i in random_order([m.id for m in members], order)]
        for k in (*counts, len(members)):
            tasks[order, k] = tuple(sorted(shuffled[:k], key=lambda m: m.id))
    unique = list(dict.fromkeys(tasks.values()))
    label = ", ".join(pools)
    chosen = bench.run_tasks(_choose_all, unique, f"choosing, {label}")
    measures = _measure(bench, dict(zip(unique, chosen, strict=True)), label)
    rows: Rows = []
    for (order, k), task in tasks.items():
        for method, (of, found) in measures[task].items():
            row = {"order": order, "k": k, "method": method, "of": of}
            rows.append({**row, **bench.accuracies(found)})
    several = [measures[task] for (_, k), task in tasks.items() if k > 1]
    for a, b in COMPARED:
        pairs = [(found[a][1], found[b][1]) for found in several]
        rows.append(comparison(f"{a} - {b}", bench, pairs))
    return rows


def _choose_all(bench: Bench, task: Task) -> dict[str, Soup]:
    return {method: choose(bench, task, method) for method in CHOSEN}


def _measure(
    bench: Bench, chosen: Mapping[Task, Mapping[str, Soup]], label: str
) -> dict[Task, dict[str, tuple[int, Measures]]]:
    """Return (number of models used, results) for each set of models and each method."""
    points = []
    for task, soups in chosen.items():
        greedy = as_listed(soups["greedy"], task)
        points += [Point.uniform(task), Point.uniform(greedy)]
    measured = iter(bench.measure(points, f"measuring, {label}"))
    found = {}
    for task, soups in chosen.items():
        best, greedy, ensemble = (picked(soups[method], task) for method in CHOSEN)
        found[task] = {
            "best": (len(best), bench.individual(best[0])),
            "uniform": (len(task), next(measured)),
            "greedy": (len(greedy), next(measured)),
            "ensemble": (len(task), bench.ensemble(task)),
            "greedy_ensemble": (len(ensemble), bench.ensemble(ensemble)),
        }
    return found


def _draw(rows: Rows) -> Figure:
    """Draw each method's mean over the random orders, and each single order as a pale line."""
    rows = having(rows, "method")
    keys = measured_on(rows)
    figure, panels = panels_of(len(keys), 3.2, 2.7)
    for panel, on in zip(panels, keys, strict=True):
        drawn = {}
        for method in distinct(rows, "method"):
            drawn[method] = _draw_method(panel, method, select(rows, method=method), on)
        _cut(panel, drawn)
        count_axis(panel, "number of models")
        panel.set_ylabel(LABELS[on])
    legend(figure, panels[0], 5)
    return figure


def _draw_method(panel: Axes, method: str, rows: Rows, on: str) -> list[float]:
    """Draw a method's curve for each random order and their mean; return the mean in percent."""
    marker, colour = SPECIAL[method]
    for order in sorted(distinct(rows, "order")):
        line = sorted(select(rows, order=order), key=lambda row: row["k"])
        panel.plot(column(line, "k"), column(line, on, 100), color=colour, alpha=0.25, linewidth=0.8)
    counts, means = means_by_count(rows, on)
    label = NAMES[method]
    panel.plot(counts, means, marker=marker, color=colour, markersize=4.5, linewidth=1.4, label=label)
    return means


def _cut(panel: Axes, drawn: Mapping[str, Sequence[float]]) -> None:
    """Limit the vertical axis to the range of the best methods; list methods below it as text."""
    top, least = max(map(max, drawn.values())), min(map(min, drawn.values()))
    low = {method: means[-1] for method, means in drawn.items() if means[-1] < top - FAR}
    shown: list[float] = []
    for method, means in drawn.items():
        if method not in low:
            shown += means[len(means) // 3 :]
    bottom = min(shown) - 0.25 * (top - min(shown)) - 0.5
    if least < bottom - FAR:
        panel.set_ylim(bottom, top + 0.15 * (top - bottom))
        told = [f"{NAMES[method]}: below this range, {end:.1f} with all models" for method, end in low.items()]
        panel.text(0.98, 0.03, "\n".join(told), transform=panel.transAxes, ha="right", fontsize=6.5)


def _analysis(name: str) -> Analysis:
    """Return the analysis of one figure; Figures H.1 to H.4 test the same claims as Figure B.1."""
    facts = PAPER["figure_B1"] | PAPER[name]
    return Analysis(**facts, rows=functools.partial(_rows, pools=POOLS[name]), draw=_draw)


MODEL_COUNTS = tuple(map(_analysis, POOLS))
