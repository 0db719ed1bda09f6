"""The decisions of a greedy or pruned soup, or the steps of a learned one, as a picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from modelsoups.disk import storage
from modelsoups.soup.coefficients import Soup

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_trace(chosen: Soup, path: str | os.PathLike[str]) -> None:
    """Write `figure_of_trace` as .png, .pdf or .svg. Raises ValueError for another suffix, or without decisions."""
    out = Path(path)
    if out.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"{out}: expected a name ending in .png, .pdf or .svg")
    figure = figure_of_trace(chosen)
    with storage.atomic(out) as tmp:
        figure.savefig(tmp, format=out.suffix[1:], dpi=150)


def figure_of_trace(chosen: Soup) -> Figure:
    """Each candidate in its order: the score with it, kept or refused, and the soup's so far; or the loss by step.

    A candidate that was given up early has no score: it is drawn as a cross on the soup's line. Of several metrics the
    mean is drawn.
    """
    from matplotlib.figure import Figure

    steps = chosen.trace
    figure = Figure(figsize=(max(4.0, 0.22 * min(len(steps), 60) + 2), 3.2), layout="constrained")
    axes = figure.subplots()
    if steps and all("loss" in s for s in steps):
        axes.plot([s["loss"] for s in steps])
        axes.set(xlabel="step", ylabel="loss on the hold-out", title=chosen.method)
        return figure
    if not steps or not all("kept" in s for s in steps):
        raise ValueError(f"soup {chosen.method} has no decisions to plot: it was not chosen greedily")
    n = steps[0]["n"]
    scale = 100 / n if n else 1.0
    best = [scale * _score(s["best"]) for s in steps]
    axes.step(range(len(steps)), best, where="post", color="0.4", label="the soup")
    groups = {
        "kept": ("o", "tab:green", [i for i, s in enumerate(steps) if s["kept"]]),
        "refused": ("v", "tab:red", [i for i, s in enumerate(steps) if not s["kept"] and s["correct"] is not None]),
        "given up early": ("x", "tab:orange", [i for i, s in enumerate(steps) if s["correct"] is None]),
    }
    for label, (marker, colour, places) in groups.items():
        heights = [best[i] if steps[i]["correct"] is None else scale * _score(steps[i]["correct"]) for i in places]
        if places:
            axes.plot(places, heights, marker, color=colour, label=label)
    names = [str(s["ingredient"] or "all") for s in steps]
    if len(steps) <= 60:
        axes.set_xticks(range(len(steps)), [n[-24:] for n in names], rotation=90, fontsize=7, parse_math=False)
    axes.set(xlabel="candidate, in order", ylabel="hold-out accuracy (%)" if n else "score", title=chosen.method)
    axes.legend(fontsize=7)
    return figure


def _score(score: float | tuple[float, ...] | list[float]) -> float:
    return float(score) if isinstance(score, (int, float)) else sum(score) / len(score)
