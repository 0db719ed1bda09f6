"""The style and helper functions of all figures, for print (PDF, PNG) and for the page (SVG).

Matplotlib draws every figure, instead of a library for interactive charts. So printed figures and
those of the page are the same, the page needs no large script, and the keyboard reaches each point.

Colours are Okabe and Ito's, or viridis, which colour-blind readers can tell apart; shapes differ
too.
"""

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
RED, PINK, SKY = "#D55E00", "#CC79A7", "#56B4E9"
INK = "#1b1f24"  # the page replaces these two with its own colours
PAPER = "#ffffff"
SPECIAL = {  # row -> (marker, colour)
    "initialization": ("*", INK),
    "best": ("D", GREEN),
    "uniform": ("o", BLUE),
    "greedy": ("P", RED),
    "learned_layers": ("^", PINK),
    "ensemble": ("s", ORANGE),
    "greedy_ensemble": ("X", SKY),
}
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.hashsalt": "modelsoups",  # so that the same figure gives the same bytes
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
} | dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
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


def style(math: bool = True) -> AbstractContextManager[None]:
    """Return a context manager in which figures are drawn and saved in the report's style.

    math=False prints `$` as a dollar sign, for figures that show names of data sets or models.
    """
    return matplotlib.rc_context({**STYLE, "text.parse_math": math})


def panels_of(count: int, width: float, height: float, rows: int = 1) -> tuple[Figure, list[Any]]:
    """Return a new figure and its rows x count panels, each of this width and height in inches."""
    figure = Figure(figsize=(width * count, height * rows), layout="constrained")
    return figure, list(figure.subplots(rows, count, squeeze=False).flat)


def describe(artist: Artist, texts: Sequence[str]) -> None:
    """Set the tooltips of the points or bars that a matplotlib artist draws, in their order."""
    known = described(artist.get_figure())
    artist.set_gid(f"marks{len(known)}")
    known[f"marks{len(known)}"] = list(texts)


def described(figure: FigureBase | None) -> dict[str, list[str]]:
    """Return the tooltip texts of a figure: id of a group in the SVG -> texts set by `describe`."""
    texts: dict[str, list[str]] = vars(figure).setdefault("texts_of_marks", {})
    return texts


def save(figure: Figure, kind: str) -> bytes:
    """Return the figure as a png, pdf or svg file's bytes, without a date; svg is transparent."""
    buffer = io.BytesIO()
    metadata = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[kind]
    transparent = kind == "svg"
    figure.savefig(buffer, format=kind, dpi=200, metadata=metadata, transparent=transparent)
    return buffer.getvalue()


def legend(figure: Figure, panel: Axes, columns: int = 4) -> None:
    """Draw the legend of a panel below the figure."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=7)


def count_axis(panel: Axes, label: str) -> None:
    """Label the horizontal axis and give it integer ticks."""
    panel.set_xlabel(label)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def scatter_by_rate(panel: Axes, x: Any, y: Any, rates: Any, among: Any, **look: Any) -> Any:
    """Draw points coloured by learning rate; the logarithmic scale covers all rates in `among`."""
    return panel.scatter(x, y, c=rates, cmap="viridis", norm=LogNorm(*_limits(among)), **look)


def rate_bar(figure: Figure, dots: Any, panels: Any, among: Sequence[float], label: str) -> None:
    bar = figure.colorbar(dots, ax=panels, label=label, shrink=0.8, pad=0.02)
    rate_ticks(bar.ax, *_limits(among))


def rate_ticks(axes: Axes, low: float, high: float, horizontal: bool = False) -> None:
    """Label a vertical (or horizontal) logarithmic axis with learning rates, written as 5e-4.

    Ticks are at powers of ten, and also at 2 and 5 times them if the range is below three decades.
    """
    steps = (1.0, 2.0, 5.0) if high / low < 1000 else (1.0,)
    places = [m * 10.0**e for e in range(-12, 2) for m in steps]
    axis = axes.xaxis if horizontal else axes.yaxis
    axis.set_major_locator(FixedLocator([x for x in places if low <= x <= high]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0e}".replace("e-0", "e-")))


def _limits(rates: Sequence[float]) -> tuple[float, float]:
    low, high = min(rates), max(rates)
    return low, high if high > low else 1.01 * low
