"""Figure 1 of the paper: the scores of all models of a run, in distribution and under shift."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from modelsoups.report.figures import both_scores, place_of, recipe_text, score_label, shifts_label
from modelsoups.report.numbers import Numbers, Result, RowResults
from modelsoups.report.plotting import INK, PAPER, SPECIAL, describe, panels_of, rate_ticks
from modelsoups.report.table_3 import label_of

ENDS = {"best": "best model", "greedy": "greedy soup"}  # rows that WiSE-FT moves towards the initialization
GAP = 0.062  # between the labels at the right edge, as a share of the panel's height


def figure_1(numbers: Numbers, width: float = 5.4) -> Figure:
    """Draw Figure 1: ingredients and soups by test score (x) and mean score on shifts (y).

    Without shifts: by hold-out score (x) and test score (y). Crosses are 95% intervals; lines are
    WiSE-FT's paths to the initialization. width: in inches.
    """
    figure, (axes,) = panels_of(1, width, 4.2)
    _draw_ingredients(numbers, figure, axes)
    labels: dict[str, tuple[float, float]] = {}
    for name, (marker, colour) in SPECIAL.items():
        if name in numbers.rows:
            row = numbers.rows[name]
            (x, y), label = place_of(numbers, row), label_of(name)
            _draw_intervals(numbers, axes, row, colour)
            looks: dict[str, Any] = {"marker": marker, "color": colour, "edgecolors": PAPER}
            mark = axes.scatter(x, y, s=140 if marker == "*" else 70, linewidths=0.6, label=label, zorder=4, **looks)
            describe(mark, [f"{label}\n{both_scores(numbers, row)}"])
            labels[label] = (x, y)
    for end, name in ENDS.items():
        if end != "greedy" or numbers.greedy_members != 1:  # a soup of one model has the best model's path
            _draw_wise_ft(numbers, axes, end, name)
    test, score = numbers.title(numbers.test), score_label(numbers)
    if numbers.shifts:
        axes.set(xlabel=f"{test} {score}", ylabel=shifts_label(numbers))
    else:
        axes.set(xlabel=f"{numbers.title(numbers.holdout)} {score}", ylabel=f"{test}\n{score}")
    _label(axes, labels)
    return figure


def _draw_ingredients(numbers: Numbers, figure: Figure, axes: Axes) -> None:
    points, rates, texts = [], [], []
    for row in numbers.individuals.values():
        if row.recipe is not None:
            points.append(place_of(numbers, row))
            rates.append(row.recipe.lr)
            recipe = recipe_text(row.recipe, numbers.has_images)
            texts.append(f"{row.name}: {recipe}\n{both_scores(numbers, row)}")
    if not points:
        return
    norm = LogNorm(min(rates), max(rates)) if min(rates) < max(rates) else None
    looks: dict[str, Any] = {"s": 28, "edgecolors": INK, "linewidths": 0.4, "label": "Fine-tuned models"}
    x, y = zip(*points, strict=True)
    dots = axes.scatter(x, y, c=rates, cmap="viridis", norm=norm, **looks)
    describe(dots, texts)
    label = "Learning rate of a fine-tuned model (dots)"
    bar = figure.colorbar(dots, ax=axes, label=label, location="bottom", pad=0.02, aspect=8 * figure.get_figwidth())
    rate_ticks(bar.ax, min(rates), max(rates), horizontal=True)


def _draw_intervals(numbers: Numbers, axes: Axes, row: RowResults, colour: str) -> None:
    """Draw the 95% intervals of a row's two scores as a thin cross."""
    x, y = place_of(numbers, row)
    across: Result | None = row.results[numbers.test if numbers.shifts else numbers.holdout]
    up = row.mean if numbers.shifts else row.results[numbers.test]
    looks: dict[str, Any] = {"color": colour, "linewidth": 0.7, "alpha": 0.6, "zorder": 2}
    if across:
        axes.plot([100 * across.low, 100 * across.high], [y, y], **looks)
    if up:
        axes.plot([x, x], [100 * up.low, 100 * up.high], **looks)


def _draw_wise_ft(numbers: Numbers, axes: Axes, end: str, name: str) -> None:
    """Draw WiSE-FT's path from the initialization (alpha 0) to the row `end` (alpha 1)."""
    between = [row for row in numbers.rows if row.startswith(f"wise_ft_{end}_")]
    if not between or not {"initialization", end} <= set(numbers.rows):
        return
    path = sorted(between, key=lambda row: float(row.rsplit("_", 1)[1]))
    points = [place_of(numbers, numbers.rows[row]) for row in ("initialization", *path, end)]
    colour = SPECIAL[end][1]
    x, y = zip(*points, strict=True)
    axes.plot(x, y, color=colour, linewidth=1, linestyle="--", zorder=2)
    marks = axes.scatter(x[1:-1], y[1:-1], s=20, marker="o", facecolors=PAPER, edgecolors=colour, zorder=3)
    describe(marks, [f"{label_of(row)}\n{both_scores(numbers, numbers.rows[row])}" for row in path])
    begin, first = points[:2]
    middle = ((begin[0] + first[0]) / 2, (begin[1] + first[1]) / 2)
    above = end == "greedy"
    rise = (first[1] - begin[1]) / (axes.get_ylim()[1] - axes.get_ylim()[0])
    aside = "center" if abs(rise) < 0.15 else "right" if (rise > 0) == above else "left"  # not across a steep path
    looks: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7, "color": colour, "ha": aside}
    offset, side = ((0, 3), "bottom") if above else ((0, -4), "top")
    axes.annotate(f"WiSE-FT of the {name}", middle, offset, va=side, **looks)


def _label(axes: Axes, labels: Mapping[str, tuple[float, float]]) -> None:
    """Write the labels of points on the left below them, all others at the right edge with a line."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    axes.set(xlim=(left, right), ylim=(bottom, top))
    beside = sorted((y, label) for label, (x, y) in labels.items() if x > (left + right) / 2)
    heights = spread([(y - bottom) / (top - bottom) for y, _ in beside], GAP)
    line = {"arrowstyle": "-", "color": INK, "linewidth": 0.4, "alpha": 0.5, "shrinkA": 1, "shrinkB": 4}
    for (_, label), height in zip(beside, heights, strict=True):
        looks: dict[str, Any] = {"fontsize": 7, "va": "center", "annotation_clip": False, "arrowprops": line}
        axes.annotate(label, labels[label], (1.02, height), textcoords="axes fraction", **looks)
    placed = {label for _, label in beside}
    for label in (label for label in labels if label not in placed):
        axes.annotate(label, labels[label], (4, -20), textcoords="offset points", fontsize=7)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Return the rising heights, moved apart to at least `gap`, and within 0 to 1 if they fit."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + gap) if moved else max(height, 0.0))
    ceiling = max(1.0, gap * (len(heights) - 1))
    for place in reversed(range(len(moved))):
        moved[place] = min(moved[place], ceiling)
        ceiling = moved[place] - gap
    return moved
