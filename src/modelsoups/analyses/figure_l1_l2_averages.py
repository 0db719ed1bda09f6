"""Weight averages along a training run (EMA, SWA) and their soups (Figures L.1 and L.2)."""

import functools
import itertools
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from modelsoups.analyses.analysis import PAPER, Analysis, comparison
from modelsoups.analyses.bench import Bench
from modelsoups.analyses.members import Member, models_of
from modelsoups.analyses.points import Point
from modelsoups.analyses.rows import Rows, column, distinct, having, measured_on, select
from modelsoups.report.plotting import LABELS, ORANGE, PINK, RED, SKY, legend, panels_of
from modelsoups.train.averages import average_name

MARKS = {
    "minimal": ("o", SKY, 5, "minimal augmentation"),
    "medium": ("s", ORANGE, 5, "medium augmentation"),
    "strong": ("^", PINK, 5, "strong augmentation"),
    "soup": ("P", RED, 7, "soup of the three"),
}


def _rows(bench: Bench, pool: str) -> Rows:
    members = bench.pool(pool, averages=True)
    bench = bench.for_pool(pool)
    bench.evaluate(models_of(members))
    groups: dict[tuple[str, float, str], list[Member]] = {}
    for m in members:
        assert m.ingredient.recipe is not None
        key = (m.ingredient.recipe.schedule, m.lr, m.average)
        groups.setdefault(key, []).append(m)
    points = list(map(Point.uniform, map(models_of, groups.values())))
    soups = bench.measure(points, "averages along the run")
    rows: Rows = []
    for ((schedule, lr, average), group), soup in zip(groups.items(), soups, strict=True):
        row = {"schedule": schedule, "lr": lr, "average": average or "none"}
        pairs = []
        for m in group:
            measures = bench.individual(m.ingredient)
            aug = m.ingredient.recipe.aug if m.ingredient.recipe else None
            rows.append({**row, "model": aug, **bench.accuracies(measures)})
            pairs.append((soup, measures))
        rows.append({**row, "model": "soup", **bench.accuracies(soup)})
        kind = f"{schedule.replace('_', ' ')}, {average_name(average)}"
        said = f"The soup improves over the mean of its models ({kind})"
        rows.append(comparison("soup - individuals", bench, pairs, **row, said=said))
    return rows


def _draw(rows: Rows) -> Figure:
    """Draw a column per learning-rate schedule; x-axis: last weights, EMA or SWA of each model."""
    rows = having(rows, "model")
    keys = dict.fromkeys(zip(column(rows, "schedule"), column(rows, "lr"), strict=True))
    ons = measured_on(rows)
    figure, panels = panels_of(len(keys), 2.5, 2.3, len(ons))
    places = zip(panels, itertools.product(ons, keys), strict=True)
    for panel, (on, (schedule, lr)) in places:
        _draw_averages(panel, select(rows, schedule=schedule, lr=lr), on)
        if on == ons[0]:
            rate = f"{lr:.1e}".replace("e-0", "e-")
            title = f"{schedule.replace('_', ' ')}, learning rate {rate}"
            panel.set_title(title, fontsize=8)
        panel.set_ylabel(LABELS[on])
    legend(figure, panels[0])
    return figure


def _draw_averages(panel: Axes, rows: Rows, on: str) -> None:
    kinds = distinct(rows, "average")
    for model, (marker, colour, size, label) in MARKS.items():
        here = select(rows, model=model)
        if here:
            x = list(map(kinds.index, column(here, "average")))
            look: dict[str, Any] = {"marker": marker, "color": colour, "label": label}
            panel.plot(x, column(here, on, 100), linestyle="none", markersize=size, **look)
    names = list(map(average_name, kinds))
    panel.set_xticks(range(len(kinds)), names, rotation=30, fontsize=6.5)


AVERAGES = Analysis(**PAPER["figure_L1"], rows=functools.partial(_rows, pool="trajectory"), draw=_draw)
AVERAGES_LABELS = Analysis(**PAPER["figure_L2"], rows=functools.partial(_rows, pool="trajectory_labels"), draw=_draw)
