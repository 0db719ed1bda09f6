"""The figures of the report of a run."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from modelsoups.recipes.recipe import Recipe
from modelsoups.report.numbers import Numbers, RowResults, percent
from modelsoups.report.plotting import INK, PAPER, SPECIAL, count_axis, describe, legend, panels_of, rate_ticks
from modelsoups.report.table_3 import label_of
from modelsoups.soup.trace import draw_decisions


def figure_1(numbers: Numbers) -> Figure:
    """Draw Figure 1: ingredients and soups by test score (x) and mean score on shifts (y).

    Without shifts: by hold-out score (x) and test score (y).
    """
    figure, (axes,) = panels_of(1, 4.8, 3.6)
    _draw_ingredients(numbers, figure, axes)
    for name, (marker, colour) in SPECIAL.items():
        if name in numbers.rows:
            row = numbers.rows[name]
            (x, y), label = _place(numbers, row), label_of(name)
            looks: dict[str, Any] = {"marker": marker, "color": colour, "edgecolors": PAPER}
            mark = axes.scatter(x, y, s=70, linewidths=0.6, label=label, zorder=3, **looks)
            describe(mark, [f"{label}\n{_accuracies(numbers, row)}"])
    test, score = numbers.title(numbers.test), _score(numbers)
    if numbers.shifts:
        axes.set(xlabel=f"{test} {score}", ylabel=_shifts_label(numbers))
    else:
        axes.set(xlabel=f"{numbers.title(numbers.holdout)} {score}", ylabel=f"{test}\n{score}")
    legend(figure, axes, 3)
    return figure


def _draw_ingredients(numbers: Numbers, figure: Figure, axes: Axes) -> None:
    points, rates, texts = [], [], []
    for row in numbers.individuals.values():
        if row.recipe is not None:
            points.append(_place(numbers, row))
            rates.append(row.recipe.lr)
            recipe = recipe_text(row.recipe, numbers.has_images)
            texts.append(f"{row.name}: {recipe}\n{_accuracies(numbers, row)}")
    if not points:
        return
    norm = LogNorm(min(rates), max(rates)) if min(rates) < max(rates) else None
    looks: dict[str, Any] = {"s": 28, "edgecolors": INK, "linewidths": 0.4, "label": "Fine-tuned models"}
    x, y = zip(*points, strict=True)
    dots = axes.scatter(x, y, c=rates, cmap="viridis", norm=norm, **looks)
    describe(dots, texts)
    bar = figure.colorbar(dots, ax=axes, label="Learning rate", pad=0.01)
    rate_ticks(bar.ax, min(rates), max(rates))


def figure_b1(numbers: Numbers) -> Figure:
    """Draw Figure B.1: scores against the number of models, added in one random order."""
    test, score = numbers.title(numbers.test), _score(numbers, "accuracy (%)")
    labels = [f"{test} {score}" if numbers.has_top_1 else f"{test}\n{score}"]
    if numbers.shifts:
        labels.append(_shifts_label(numbers))
    figure, panels = panels_of(len(labels), 6.4 / min(len(labels), 2), 2.9)
    counts, unit = sorted(numbers.curve), _unit(numbers)
    for column, panel in enumerate(panels):
        for method in ("best", "uniform", "greedy", "ensemble"):
            marker, colour = SPECIAL[method]
            label = label_of(method)
            values = [_point(numbers, numbers.curve[count][method])[column] for count in counts]
            looks = {"marker": marker, "color": colour, "markersize": 5, "linewidth": 1.3}
            (line,) = panel.plot(counts, values, label=label, **looks)
            describe(line, list(map(f"{label} of {{}} models: {{:.2f}}{unit}".format, counts, values)))
        count_axis(panel, "Number of models")
        panel.set_ylabel(labels[column])
    legend(figure, panels[0])
    return figure


def greedy_trace(numbers: Numbers) -> Figure:
    """Draw the greedy soup's steps: hold-out score with each candidate, and the best so far."""
    soup = numbers.rows["greedy"].soup
    steps = soup.trace if soup else ()
    figure, (axes,) = panels_of(1, 6.4, 2.6)
    for marks, places in draw_decisions(axes, steps) if steps else ():
        texts = []
        for step in map(steps.__getitem__, places):
            decision = "joins" if step["kept"] else "is left out"
            score = "" if step["correct"] is None else f"{100 * step['correct'] / step['n']:.2f}{_unit(numbers)}"
            with_it = f": {score} with it" if score else ""
            texts.append(f"{step['ingredient']} {decision}{with_it}")
        describe(marks, texts)
    score = _score(numbers, "accuracy (%)")
    axes.set_ylabel(f"Hold-out {score}" if numbers.has_top_1 else f"Hold-out\n{score}")
    legend(figure, axes, 3)
    return figure


def each_shift(numbers: Numbers) -> Figure:
    """Draw the main rows' scores on the test set and each shift as bars, with 95% intervals."""
    shown = ("initialization", "best", "uniform", "greedy", "ensemble")
    rows = [numbers.rows[name] for name in shown if name in numbers.rows]
    sets = [numbers.test, *numbers.available_shifts]
    figure, (axes,) = panels_of(1, 6.4, 2.9)
    width = 0.84 / len(rows)
    for i, row in enumerate(rows):
        places = np.arange(len(sets)) + (i - (len(rows) - 1) / 2) * width
        results = [row.results[name] for name in sets]
        low, share, high = 100 * np.array([(r.low, r.accuracy, r.high) for r in results]).T
        spread = np.abs([share - low, high - share])
        label = label_of(row.name)
        colour = "#999999" if row.name == "initialization" else SPECIAL[row.name][1]
        bars = axes.bar(places, share, width * 0.92, color=colour, label=label)
        axes.errorbar(places, share, yerr=spread, fmt="none", ecolor=INK, elinewidth=0.7)
        for bar, r in zip(bars, results, strict=True):
            text = f"{label}, {numbers.title(r.dataset)}: {percent(r.accuracy)}{_unit(numbers)}"
            describe(bar, [f"{text} ({percent(r.low)} to {percent(r.high)})"])
    titles = list(map(numbers.title, sets))
    axes.set_xticks(np.arange(len(sets)), titles, rotation=15 if sum(map(len, titles)) > 80 else 0)
    axes.grid(visible=False, axis="x")
    score = _score(numbers)
    axes.set_ylabel(score[0].upper() + score[1:])
    legend(figure, axes, 5)
    return figure


def contact_sheet(contact: dict[str, np.ndarray]) -> Figure:
    """Draw a row of images per data set. contact: title of the set -> uint8 images (B, H, W, C)."""
    columns = max(map(len, contact.values()))
    width, height = columns * 0.5 + 1.7, len(contact) * 0.52  # inches, 1.7 of them for the titles
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(len(contact), columns, squeeze=False)
    for panels, (title, images_BHWC) in zip(grid, contact.items(), strict=True):
        for panel, image_HWC in zip(panels, images_BHWC, strict=False):
            panel.imshow(image_HWC, interpolation="nearest")
        for panel in panels:
            panel.set_axis_off()
        where = panels[0].transAxes
        panels[0].text(-0.15, 0.5, title, transform=where, ha="right", va="center")
    edges = {"left": 1.7 / width, "right": 0.995, "top": 0.99, "bottom": 0.01}
    figure.subplots_adjust(**edges, wspace=0.06, hspace=0.08)
    return figure


# ---- parts of these figures ----


def recipe_text(recipe: Recipe, images: bool = True) -> str:
    """Return the main hyperparameters of a recipe as one line of text."""
    if not images:
        return f"learning rate {recipe.lr:.2e}, batch size {recipe.batch_size}, {recipe.length}"
    text = f"learning rate {recipe.lr:.2e}, weight decay {recipe.weight_decay:.2g}, {recipe.length}"
    return f"{text}, smoothing {recipe.label_smoothing:.2f}, mixup {recipe.mixup:.2f}, {recipe.aug}"


def _score(numbers: Numbers, of_images: str = "accuracy (top-1, %)") -> str:
    """Return the score with its unit, for an axis; of_images: the words for top-1 accuracy."""
    return of_images if numbers.has_top_1 else f"{numbers.score} ({numbers.score_unit})"


def _unit(numbers: Numbers) -> str:
    """Return what follows a score times 100 in a tooltip: " %", or nothing if it is no accuracy."""
    return " %" if numbers.score_unit == "%" else ""


def _accuracies(numbers: Numbers, row: RowResults) -> str:
    test, shifts, unit = percent(row.accuracy(numbers.test)), percent(row.shift_mean), _unit(numbers)
    if not numbers.shifts:
        return f"hold-out {percent(row.accuracy(numbers.holdout))}{unit}, test {test}{unit}"
    return f"test {test}{unit}, mean of shifts {shifts}{unit}"


def _place(numbers: Numbers, row: RowResults) -> tuple[float, float]:
    """Return a model's place in Figure 1: x and y."""
    if numbers.shifts:
        return _point(numbers, row)
    return 100 * row.accuracy(numbers.holdout), 100 * row.accuracy(numbers.test)


def _point(numbers: Numbers, row: RowResults) -> tuple[float, float]:
    """Return test score and mean score over the available shifts (none: NaN), times 100."""
    shifts = list(map(row.accuracy, numbers.available_shifts))
    mean = 100 * sum(shifts) / len(shifts) if shifts else float("nan")
    return 100 * row.accuracy(numbers.test), mean


def _shifts_label(numbers: Numbers) -> str:
    there, wanted, unit = len(numbers.available_shifts), len(numbers.shifts), numbers.score_unit
    if there == wanted == 1:
        return f"{numbers.title(numbers.shifts[0])} ({unit})"
    if there == wanted:
        return f"Mean of the {wanted} distribution shifts ({unit})"
    if not there:
        return "No shift is available"
    return f"Mean of {there} of the {wanted} shifts (others not available) ({unit})"
