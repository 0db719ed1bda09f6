"""What the figures of the analyses share: colours, labels, panels and learning rates as colours."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from modelsoups.analyses.rows import Rows
from modelsoups.report.figures import rate_ticks

BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
RED, PINK, SKY = "#D55E00", "#CC79A7", "#56B4E9"
LABELS = {"test": "test (accuracy, %)", "shifts": "mean of shifts (accuracy, %)"}
NAMES = {
    "best": "Best individual",
    "uniform": "Uniform soup",
    "greedy": "Greedy soup",
    "ensemble": "Ensemble",
    "greedy_ensemble": "Greedy ensemble",
    "second_best": "Second best",
    "learned": "Learned soup",
    "learned_layers": "Learned soup (by layer)",
}


def panels_of(count: int, width: float = 3.1, height: float = 2.7, rows: int = 1) -> tuple[Figure, list[Any]]:
    """A figure with rows x count panels of this size in inches, and its panels row by row."""
    size = (width * count, height * rows)
    figure, axes = plt.subplots(rows, count, figsize=size, layout="constrained", squeeze=False)
    return figure, list(axes.flat)


def measured_on(rows: Rows) -> list[str]:
    """test, and shifts where the mean over all of them is known."""
    return [on for on in ("test", "shifts") if any(row.get(on) is not None for row in rows)]


def legend(figure: Figure, panel: Axes, columns: int = 4) -> None:
    """The legend of a panel, below the figure."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=7)


def count_axis(panel: Axes, label: str) -> None:
    """A horizontal axis of whole numbers."""
    panel.set_xlabel(label)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def scatter_by_rate(panel: Axes, x: Any, y: Any, rates: Any, among: Any, **look: Any) -> Any:
    """Points coloured by learning rate, on a logarithmic scale that spans the rates `among`."""
    return panel.scatter(x, y, c=rates, cmap="viridis", norm=LogNorm(*_limits(among)), **look)


def rate_bar(figure: Figure, dots: Any, panels: Any, among: Sequence[float], label: str) -> None:
    """The colour bar of `scatter_by_rate`."""
    bar = figure.colorbar(dots, ax=panels, label=label, shrink=0.8, pad=0.02)
    rate_ticks(bar.ax, *_limits(among))


def _limits(rates: Sequence[float]) -> tuple[float, float]:
    low, high = min(rates), max(rates)
    return low, high if high > low else 1.01 * low
