"""The style and the parts that all figures share, for print (PDF, PNG) and for the page (SVG).

Matplotlib draws them all rather than a library of interactive charts. The paper's figure and the
page's are then the same, the page needs no megabytes of script, and a keyboard reaches its marks.

Colours are Okabe and Ito's, or viridis, which colour-blind readers tell apart; shapes differ too.
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
INK = "#1b1f24"  # the page replaces these two by its own colours
PAPER = "#ffffff"
SPECIAL = {  # row -> marker, colour
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
    "svg.hashsalt": "modelsoups",  # the same figure, the same bytes
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
    """The style of every figure drawn and saved within.

    math=False where names of data or models occur: a `$` is then a dollar sign.
    """
    return matplotlib.rc_context({**STYLE, "text.parse_math": math})


def panels_of(count: int, width: float, height: float, rows: int = 1) -> tuple[Figure, list[Any]]:
    """A figure with rows x count panels of this size in inches, and its panels row by row."""
    figure = Figure(figsize=(width * count, height * rows), layout="constrained")
    return figure, list(figure.subplots(rows, count, squeeze=False).flat)


def describe(artist: Artist, texts: Sequence[str]) -> None:
    """Set the text that the page shows for each mark of an artist, in the order of its points."""
    known = described(artist.get_figure())
    artist.set_gid(f"marks{len(known)}")
    known[f"marks{len(known)}"] = list(texts)


def described(figure: FigureBase | None) -> dict[str, list[str]]:
    """The texts that `describe` set, by the id of the artist's group in the SVG."""
    texts: dict[str, list[str]] = vars(figure).setdefault("texts_of_marks", {})
    return texts


def save(figure: Figure, kind: str) -> bytes:
    """The figure as png, pdf or svg, without a date in it; an svg has a transparent background."""
    buffer = io.BytesIO()
    metadata = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[kind]
    transparent = kind == "svg"
    figure.savefig(buffer, format=kind, dpi=200, metadata=metadata, transparent=transparent)
    return buffer.getvalue()


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
    bar = figure.colorbar(dots, ax=panels, label=label, shrink=0.8, pad=0.02)
    rate_ticks(bar.ax, *_limits(among))


def rate_ticks(axes: Axes, low: float, high: float) -> None:
    """Label a vertical logarithmic axis with learning rates, written as 5e-4.

    Ticks stand at the decades, and at their doubles and fives on a range below three decades.
    """
    steps = (1.0, 2.0, 5.0) if high / low < 1000 else (1.0,)
    places = [m * 10.0**e for e in range(-12, 2) for m in steps]
    axes.yaxis.set_major_locator(FixedLocator([x for x in places if low <= x <= high]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0e}".replace("e-0", "e-")))


def _limits(rates: Sequence[float]) -> tuple[float, float]:
    low, high = min(rates), max(rates)
    return low, high if high > low else 1.01 * low
