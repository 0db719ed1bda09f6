"""Figures of accuracy and calibration against the number of models, and by the kind of average along a run."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from modelsoups.analyses.style import BLUE, GREEN, LABELS, NAMES, ORANGE, PINK, RED, SKY, Rows, legend, panels_of, there
from modelsoups.report.figures import SPECIAL
from modelsoups.train.averages import average_name

FAR = 6.0  # points of accuracy that would hide differences of one


def curves(rows: Rows) -> Figure:
    """Mean over the orders, each order faded behind it."""
    rows = [r for r in rows if "method" in r]
    keys = there(rows)
    figure, panels = panels_of(len(keys), 3.2, 2.7)
    for panel, on in zip(panels, keys, strict=True):
        drawn: dict[str, list[float]] = {}
        for method in dict.fromkeys(r["method"] for r in rows):
            marker, colour = SPECIAL[method]
            here = [r for r in rows if r["method"] == method]
            counts = sorted({r["k"] for r in here})
            for order in sorted({r["order"] for r in here}):
                line = sorted((r["k"], 100 * r[on]) for r in here if r["order"] == order)
                panel.plot(*zip(*line, strict=True), color=colour, alpha=0.25, linewidth=0.8)
            means = [float(100 * np.mean([r[on] for r in here if r["k"] == k])) for k in counts]
            panel.plot(counts, means, marker=marker, color=colour, markersize=4.5, linewidth=1.4, label=NAMES[method])
            drawn[method] = means
        _cut(panel, drawn)
        panel.set_xlabel("number of models")
        panel.set_ylabel(LABELS[on])
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure, panels[0], 5)
    return figure


def _cut(panel: Axes, drawn: Mapping[str, Sequence[float]]) -> None:
    """End the axis where the differences among the best methods can be seen; what ends below it is told in words."""
    ends = {method: means[-1] for method, means in drawn.items()}
    top = max(max(means) for means in drawn.values())
    low = {method: end for method, end in ends.items() if end < top - FAR}
    shown = [y for method, means in drawn.items() if method not in low for y in means[len(means) // 3 :]]
    bottom = min(shown) - 0.25 * (top - min(shown)) - 0.5
    if min(min(means) for means in drawn.values()) < bottom - FAR:
        panel.set_ylim(bottom, top + 0.15 * (top - bottom))
        told = [f"{NAMES[method]}: below, {end:.1f} with all models" for method, end in low.items()]
        panel.text(0.98, 0.03, "\n".join(told), transform=panel.transAxes, ha="right", fontsize=6.5)


def budget(rows: Rows) -> Figure:
    rows = [r for r in rows if "method" in r]
    keys = there(rows)
    figure, panels = panels_of(len(keys), 3.1, 2.6)
    marks = {
        "individual": ("D", GREEN, "individual with seed k"),
        "soup": ("o", BLUE, "soup of seeds 1 to k"),
        "ensemble": ("s", ORANGE, "ensemble of seeds 1 to k"),
    }
    for panel, on in zip(panels, keys, strict=True):
        for method, (marker, colour, label) in marks.items():
            line = [(r["k"], 100 * r[on]) for r in rows if r["method"] == method]
            panel.plot(
                *zip(*line, strict=True),
                marker=marker,
                color=colour,
                markersize=4.5,
                label=label,
                linestyle="none" if method == "individual" else "-",
            )
        panel.set_xlabel("number of models k")
        panel.set_ylabel(LABELS[on])
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure, panels[0])
    return figure


def calibration(rows: Rows) -> Figure:
    """Accuracy and ECE against the number of seeds: in distribution (top) and mean of the shifts (bottom)."""
    rows = [r for r in rows if "role" in r]
    roles = [role for role in ("test", "shift") if any(r["role"] == role for r in rows)]
    figure, panels = panels_of(2, 3.1, 2.3, len(roles))
    marks = {
        "soup": ("o", BLUE, "-"),
        "ensemble": ("s", ORANGE, "-"),
        "calibrated soup": ("o", BLUE, "--"),
        "calibrated ensemble": ("s", ORANGE, "--"),
    }
    for i, role in enumerate(roles):
        for j, key in enumerate(("accuracy", "ece")):
            panel = panels[2 * i + j]
            for method, (marker, colour, dash) in marks.items():
                if key == "accuracy" and method.startswith("calibrated"):
                    continue
                here = [r for r in rows if r["method"] == method and r["role"] == role]
                counts = sorted({r["k"] for r in here})
                means = [100 * np.mean([r[key] for r in here if r["k"] == k]) for k in counts]
                panel.plot(
                    counts,
                    means,
                    marker=marker,
                    color=colour,
                    linestyle=dash,
                    markersize=4,
                    label=method,
                    markerfacecolor="white" if dash == "--" else colour,
                )
            panel.set_title("test" if role == "test" else "mean of shifts")
            panel.set_ylabel("accuracy (%)" if key == "accuracy" else "calibration error, ECE (%)")
            panel.set_xlabel("number of models (seeds)")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure, panels[1])
    return figure


def trajectory(rows: Rows) -> Figure:
    """A column a schedule: accuracy by kind of average, models of each augmentation and their soup."""
    rows = [r for r in rows if "model" in r]
    keys = list(dict.fromkeys((r["schedule"], r["lr"]) for r in rows))
    ons = there(rows)
    figure, panels = panels_of(len(keys), 2.5, 2.3, len(ons))
    marks = {"minimal": ("o", SKY), "medium": ("s", ORANGE), "strong": ("^", PINK), "soup": ("P", RED)}
    for i, (on, (schedule, lr)) in enumerate(itertools.product(ons, keys)):
        panel, here = panels[i], [r for r in rows if (r["schedule"], r["lr"]) == (schedule, lr)]
        kinds = list(dict.fromkeys(r["average"] for r in here))
        for model, (marker, colour) in marks.items():
            points = [(kinds.index(r["average"]), 100 * r[on]) for r in here if r["model"] == model]
            if points:
                panel.plot(
                    *zip(*points, strict=True),
                    linestyle="none",
                    marker=marker,
                    color=colour,
                    markersize=7 if model == "soup" else 5,
                    label="soup of the three" if model == "soup" else f"{model} augmentation",
                )
        panel.set_xticks(range(len(kinds)), [average_name(k) for k in kinds], rotation=30, fontsize=6.5)
        if on == ons[0]:
            panel.set_title(f"{schedule.replace('_', ' ')}, learning rate {lr:.1e}".replace("e-0", "e-"), fontsize=8)
        panel.set_ylabel(LABELS[on])
    legend(figure, panels[0])
    return figure
