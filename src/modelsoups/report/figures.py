"""The figures of the report of a run; Figure 1 is in figure_1.py."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from modelsoups.recipes.recipe import Recipe
from modelsoups.report.numbers import MEAN, Difference, Numbers, RowResults, interval, percent
from modelsoups.report.plotting import INK, PAPER, SPECIAL, count_axis, describe, legend, panels_of
from modelsoups.report.table_3 import label_of
from modelsoups.soup.trace import draw_decisions

COMPARED = ("zeroshot", "initialization", "uniform", "greedy", "ensemble")  # with the best individual model
SHORT = {"initialization": "Initialization", "best": "Best model", "uniform": "Uniform soup"}
SHORT |= {"greedy": "Greedy soup", "ensemble": "Ensemble"}


def compared(numbers: Numbers) -> list[str]:
    """Return the main methods that this run compares with the best individual model."""
    return [name for name in COMPARED if numbers.difference(name, "best", numbers.test)]


def gains(numbers: Numbers, stacked: bool = False) -> Figure:
    """Draw the main methods' differences from the best individual model, with paired intervals.

    One panel for the test set and one for the mean of the shifts; stacked: below each other.
    """
    shown = compared(numbers)
    places = [numbers.test]
    if any(numbers.difference(name, "best", MEAN) for name in shown):
        places.append(MEAN)
    across = 1 if stacked else len(places)
    height = 0.28 * len(shown) + 0.75
    figure, panels = panels_of(across, 5.4 if across == 1 and not stacked else 3.6, height, len(places) // across)
    for place, (panel, on) in enumerate(zip(panels, places, strict=True)):
        for y, name in enumerate(shown):
            if d := numbers.difference(name, "best", on):
                _draw_difference(panel, y, d)
        panel.axvline(0, color=INK, linewidth=0.8)
        names = [label_of(name) for name in shown] if place == 0 or stacked else [""] * len(shown)
        panel.set_yticks(range(len(shown)), names)
        panel.set_ylim(len(shown) - 0.5, -0.5)
        panel.grid(visible=False, axis="y")
        panel.tick_params(axis="y", length=0)
        title = numbers.title(on) if on != MEAN else numbers.shifts_heading
        best = numbers.rows["best"].shift_mean if on == MEAN else numbers.rows["best"].accuracy(on)
        panel.set_title(title, fontsize=8, loc="left", fontweight="bold")
        panel.set_xlabel(f"points; line: best individual model, {percent(best)}")
    return figure


def _draw_difference(panel: Axes, y: float, d: Difference) -> None:
    """Draw one difference as a mark with its interval, and its value as text above it."""
    marker, colour = SPECIAL.get(d.a, ("o", INK))
    value = 100 * d.value
    if d.low is not None and d.high is not None:
        panel.plot([100 * d.low, 100 * d.high], [y, y], color=colour, linewidth=1.4)
    size = 90 if marker == "*" else 60 if d.a == "greedy" else 34
    mark = panel.scatter(value, y, s=size, marker=marker, color=colour, edgecolors=PAPER, linewidths=0.6, zorder=3)
    describe(
        mark, [f"{label_of(d.a)} minus best individual model: {percent(d.value, True)}\n95% interval {interval(d)}"]
    )
    bold = "bold" if d.a == "greedy" else "normal"
    above: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 7, "fontweight": bold}
    panel.annotate(percent(d.value, True), (value, y), (0, 4.5), **above)


def figure_b1(numbers: Numbers, stacked: bool = False) -> Figure:
    """Draw Figure B.1: scores against the number of models, added in one random order.

    stacked: the panels are below each other, for narrow screens.
    """
    test, score = numbers.title(numbers.test), score_label(numbers, "accuracy (%)")
    labels = [f"{test} {score}" if numbers.has_top_1 else f"{test}\n{score}"]
    if numbers.shifts:
        labels.append(shifts_label(numbers))
    across = 1 if stacked else len(labels)
    figure, panels = panels_of(across, 3.6 if stacked else 6.4 / min(len(labels), 2), 2.9, len(labels) // across)
    counts, unit = sorted(numbers.curve), unit_of(numbers)
    for column, panel in enumerate(panels):
        for method in ("best", "uniform", "greedy", "ensemble"):
            marker, colour = SPECIAL[method]
            label = label_of(method)
            values = [point_of(numbers, numbers.curve[count][method])[column] for count in counts]
            looks = {"marker": marker, "color": colour, "markersize": 5, "linewidth": 1.3}
            (line,) = panel.plot(counts, values, label=label, **looks)
            describe(line, list(map(f"{label} of {{}} models: {{:.2f}}{unit}".format, counts, values)))
        count_axis(panel, "Number of models")
        panel.set_ylabel(labels[column])
    legend(figure, panels[0], 2 if stacked else 4)
    return figure


def greedy_trace(numbers: Numbers) -> Figure:
    """Draw the greedy soup's steps: hold-out score with each candidate, and the best so far."""
    soup = numbers.rows["greedy"].soup
    steps = soup.trace if soup else ()
    figure, (axes,) = panels_of(1, 6.4, 2.9)
    for marks, places in draw_decisions(axes, steps) if steps else ():
        texts = []
        for step in map(steps.__getitem__, places):
            decision = "joins" if step["kept"] else "is left out"
            score = "" if step["correct"] is None else f"{100 * step['correct'] / step['n']:.2f}{unit_of(numbers)}"
            with_it = f": {score} with it" if score else ""
            texts.append(f"{step['ingredient']} {decision}{with_it}")
        describe(marks, texts)
    score = score_label(numbers, "accuracy (%)")
    axes.set_ylabel(f"Hold-out {score}" if numbers.has_top_1 else f"Hold-out\n{score}")
    legend(figure, axes, 3)
    return figure


def each_shift(numbers: Numbers, across: int = 3) -> Figure:
    """Draw a panel per test set with the main rows' scores and 95% intervals, `across` in a row."""
    rows = [numbers.rows[name] for name in ("initialization", "best", *COMPARED[2:]) if name in numbers.rows]
    sets = [numbers.test, *numbers.available_shifts]
    across = min(across, len(sets))
    width = {1: 4.8, 2: 1.9}.get(across, 6.9 / across)
    figure, panels = panels_of(across, width, 0.2 * len(rows) + 0.65, -(-len(sets) // across))
    for place, (panel, name) in enumerate(zip(panels, sets, strict=False)):
        for y, row in enumerate(rows):
            _draw_score(numbers, panel, y, row, name)
        panel.set_yticks(range(len(rows)), [SHORT[row.name] if place % across == 0 else "" for row in rows])
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.grid(visible=False, axis="y")
        panel.tick_params(axis="y", length=0)
        panel.set_title(numbers.title(name), fontsize=7.5, loc="left")
        panel.xaxis.set_major_locator(MaxNLocator(4))
    for panel in panels[len(sets) :]:
        panel.set_axis_off()
    score = score_label(numbers)
    figure.supxlabel(score[0].upper() + score[1:], fontsize=8)
    return figure


def _draw_score(numbers: Numbers, panel: Axes, y: float, row: RowResults, dataset: str) -> None:
    """Draw one score as a mark with its interval."""
    marker, colour = SPECIAL[row.name]
    r = row.results[dataset]
    panel.plot([100 * r.low, 100 * r.high], [y, y], color=colour, linewidth=1.2)
    looks: dict[str, Any] = {"marker": marker, "color": colour, "edgecolors": PAPER, "linewidths": 0.5, "zorder": 3}
    mark = panel.scatter(100 * r.accuracy, y, s=90 if marker == "*" else 34, **looks)
    text = f"{label_of(row.name)}, {numbers.title(dataset)}: {percent(r.accuracy)}{unit_of(numbers)}"
    describe(mark, [f"{text} ({percent(r.low)} to {percent(r.high)})"])


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


def score_label(numbers: Numbers, of_images: str = "accuracy (top-1, %)") -> str:
    """Return the score with its unit, for an axis; of_images: the words for top-1 accuracy."""
    return of_images if numbers.has_top_1 else f"{numbers.score} ({numbers.score_unit})"


def unit_of(numbers: Numbers) -> str:
    """Return what follows a score times 100 in a tooltip: " %", or nothing if it is no accuracy."""
    return " %" if numbers.score_unit == "%" else ""


def both_scores(numbers: Numbers, row: RowResults) -> str:
    test, shifts, unit = percent(row.accuracy(numbers.test)), percent(row.shift_mean), unit_of(numbers)
    if not numbers.shifts:
        return f"hold-out {percent(row.accuracy(numbers.holdout))}{unit}, test {test}{unit}"
    return f"test {test}{unit}, mean of shifts {shifts}{unit}"


def place_of(numbers: Numbers, row: RowResults) -> tuple[float, float]:
    """Return a model's place in Figure 1: x and y."""
    if numbers.shifts:
        return point_of(numbers, row)
    return 100 * row.accuracy(numbers.holdout), 100 * row.accuracy(numbers.test)


def point_of(numbers: Numbers, row: RowResults) -> tuple[float, float]:
    """Return test score and mean score over the available shifts (none: NaN), times 100."""
    shifts = list(map(row.accuracy, numbers.available_shifts))
    mean = 100 * sum(shifts) / len(shifts) if shifts else float("nan")
    return 100 * row.accuracy(numbers.test), mean


def shifts_label(numbers: Numbers) -> str:
    there, wanted, unit = len(numbers.available_shifts), len(numbers.shifts), numbers.score_unit
    if there == wanted == 1:
        return f"{numbers.title(numbers.shifts[0])} ({unit})"
    if there == wanted:
        return f"Mean of the {wanted} distribution shifts ({unit})"
    if not there:
        return "No shift is available"
    return f"Mean of {there} of the {wanted} shifts (others not available) ({unit})"
