"""Plots of how a soup was chosen: a greedy soup's decisions, or a learned soup's loss."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelsoups.disk import storage
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.greedy_rule import mean_score

if TYPE_CHECKING:  # the library loads without matplotlib
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure

MARKS = {"Kept": ("P", "#D55E00"), "Left out": ("o", "#0072B2"), "Rejected early": ("X", "#E69F00")}
MOST_NAMES = 60  # candidates whose names the axis shows; with more, every nth name


def plot_trace(chosen: Soup, path: str | os.PathLike[str]) -> None:
    """Plot a greedy or pruned soup's decisions, or a learned soup's loss, to a .png, .pdf or .svg.

    soup.plot_trace(soup.greedy(paths, holdout), "trace.png")
    """
    out = Path(path)
    if out.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"{out}: expected a name ending in .png, .pdf or .svg")
    figure = figure_of_trace(chosen)
    with storage.atomic(out) as tmp:
        figure.savefig(tmp, format=out.suffix[1:], dpi=150)


def figure_of_trace(chosen: Soup) -> "Figure":
    """Return a figure of a greedy or pruned soup's decisions, or a learned soup's loss by step."""
    from matplotlib.figure import Figure

    steps = chosen.trace
    figure = Figure(figsize=(max(4.0, 0.22 * min(len(steps), MOST_NAMES) + 2), 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set_title(chosen.method)
    if steps and all("loss" in s for s in steps):
        axes.plot([s["loss"] for s in steps])
        axes.set(xlabel="Step", ylabel="Loss on the hold-out")
        return figure
    if not steps or not all("kept" in s for s in steps):
        way_out = "give a greedy, pruned or learned one"
        raise ValueError(f"soup {chosen.method} has no decisions to plot; {way_out}")
    draw_decisions(axes, steps)
    axes.legend(fontsize=7)
    return figure


def draw_decisions(axes: "Axes", steps: Sequence[Mapping[str, Any]]) -> "list[tuple[PathCollection, list[int]]]":
    """Draw the score of each model tried; return each marker's scatter plot and indices of `steps`.

    Several metrics are drawn as their mean. A model whose evaluation was stopped early, because it
    could not be added any more, has no score of its own: its mark is on the soup's line.
    """
    n = steps[0]["n"]
    scale = 100 / n if n else 1.0
    best = [scale * mean_score(s["best"]) for s in steps]
    axes.step(range(len(steps)), best, where="post", color=MARKS["Kept"][1], lw=1.2, label="Soup so far")
    places: dict[str, list[int]] = {label: [] for label in MARKS}
    for i, step in enumerate(steps):
        rejected = "Rejected early" if step["correct"] is None else "Left out"
        places["Kept" if step["kept"] else rejected].append(i)
    marks = []
    for label, (marker, colour) in MARKS.items():
        heights = []
        for i in places[label]:
            correct = steps[i]["correct"]
            heights.append(best[i] if correct is None else scale * mean_score(correct))
        if heights:
            fill = colour if label == "Kept" else "none"
            look: dict[str, Any] = {"marker": marker, "facecolors": fill, "edgecolors": colour}
            marks.append((axes.scatter(places[label], heights, 34, label=label, **look), places[label]))
    shown = range(0, len(steps), -(-len(steps) // MOST_NAMES))
    names = [str(steps[i]["ingredient"] or "all")[-24:] for i in shown]
    rotation = 0 if len(names) * max(map(len, names)) <= 60 else 90  # upright where they have room
    axes.set_xticks(shown, names, rotation=rotation, fontsize=7, parse_math=False)
    axes.set(xlabel="Candidate, in the order of trial", ylabel="Hold-out accuracy (%)" if n else "Score")
    return marks
