"""Figures in one style, each drawn once for print (PDF, PNG) and for the page (SVG with a text behind every mark).

Matplotlib draws them all, and not a library of interactive charts: then the paper's figure and the page's are one, the
page needs no megabytes of script, and its marks are elements that a keyboard reaches and a printer prints.

Colours are Okabe and Ito's, or viridis, which colour-blind readers tell apart; shapes differ too.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from modelsoups.recipes.recipe import Recipe
from modelsoups.report.numbers import Measured, Numbers, percent
from modelsoups.report.tables import label_of
from modelsoups.soup.trace import draw_decisions

INK = "#1b1f24"  # the page puts its own colours in the place of these two
PAPER = "#ffffff"
SPECIAL = {  # row -> marker, colour
    "initialization": ("*", INK),
    "best": ("D", "#009E73"),
    "uniform": ("o", "#0072B2"),
    "greedy": ("P", "#D55E00"),
    "learned_layers": ("^", "#CC79A7"),
    "ensemble": ("s", "#E69F00"),
    "greedy_ensemble": ("X", "#56B4E9"),
}
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "modelsoups",  # the same figure, the same bytes
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}
_TEXTS: WeakKeyDictionary[Figure, dict[str, list[str]]] = WeakKeyDictionary()


@contextmanager
def style(math: bool = True) -> Iterator[None]:
    """The style of every figure drawn and saved within. math=False where names occur: then `$` is a dollar sign."""
    with matplotlib.rc_context({**STYLE, "text.parse_math": math}), warnings.catch_warnings():
        matplotlib.use("Agg")
        yield


def describe(artist: Artist, texts: Sequence[str]) -> None:
    """Give each mark of an artist, in order of its points, the text that the page shows for it."""
    figure = artist.get_figure()
    assert isinstance(figure, Figure), "the artist is in a figure"
    known = _TEXTS.setdefault(figure, {})
    artist.set_gid(f"marks{len(known)}")
    known[f"marks{len(known)}"] = list(texts)


def described(figure: Figure) -> dict[str, list[str]]:
    """The texts of `describe` by the id of the artist's group in the SVG."""
    return _TEXTS.get(figure, {})


# ---- the figures of the report ----


def figure_1(numbers: Numbers) -> Figure:
    """Test accuracy against the mean of shifts: ingredients by learning rate, soups and ensembles as marks."""
    figure, axes = plt.subplots(figsize=(4.8, 3.6), layout="constrained")
    drawn = [(row, row.recipe) for row in numbers.individuals.values() if row.recipe is not None]
    if drawn:
        xs, ys = zip(*[_place(numbers, row) for row, _ in drawn], strict=True)
        rates = [recipe.lr for _, recipe in drawn]
        norm = LogNorm(min(rates), max(rates)) if min(rates) < max(rates) else None
        dots = axes.scatter(xs, ys, c=rates, cmap="viridis", norm=norm, s=28, edgecolors=INK, linewidths=0.4,
                            label="Fine-tuned models")  # fmt: skip
        describe(dots, [f"{row.name}: {told(recipe)}\n{_said(numbers, row)}" for row, recipe in drawn])
        bar = figure.colorbar(dots, ax=axes, label="Learning rate", pad=0.01)
        rate_ticks(bar.ax, min(rates), max(rates))
    for name, (marker, colour) in SPECIAL.items():
        if name in numbers.rows:
            row = numbers.rows[name]
            mark = axes.scatter(*_place(numbers, row), marker=marker, s=70, color=colour, edgecolors=PAPER,
                                linewidths=0.6, label=label_of(name), zorder=3)  # fmt: skip
            describe(mark, [f"{label_of(name)}\n{_said(numbers, row)}"])
    axes.set_xlabel(f"{numbers.title(numbers.test)} accuracy (top-1, %)")
    axes.set_ylabel(_shifts_label(numbers))
    figure.legend(loc="outside lower center", ncols=3, fontsize=7)
    return figure


def figure_b1(numbers: Numbers) -> Figure:
    """Accuracy against the number of models considered, in one random order (appendix B)."""
    figure, panels = plt.subplots(1, 2, figsize=(6.4, 2.9), layout="constrained")
    counts = sorted(numbers.curve)
    for panel, shift in zip(panels, (False, True), strict=True):
        for method in ("best", "uniform", "greedy", "ensemble"):
            marker, colour = SPECIAL[method]
            rows = [numbers.curve[k][method] for k in counts]
            values = [_place(numbers, row)[int(shift)] for row in rows]
            (line,) = panel.plot(
                counts, values, marker=marker, color=colour, label=label_of(method), markersize=5, linewidth=1.3
            )
            describe(
                line, [f"{label_of(method)} of {k} models: {v:.2f} %" for k, v in zip(counts, values, strict=True)]
            )
        panel.set_xlabel("Number of models")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_ylabel(_shifts_label(numbers) if shift else f"{numbers.title(numbers.test)} accuracy (%)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7)
    return figure


def greedy_trace(numbers: Numbers) -> Figure:
    """Recipe 1 step by step: hold-out accuracy of the soup with each candidate, and the best so far."""
    soup = numbers.rows["greedy"].soup
    steps = soup.trace if soup else ()
    figure, axes = plt.subplots(figsize=(6.4, 2.6), layout="constrained")
    for marks, places in draw_decisions(axes, steps) if steps else ():
        texts = []
        for step in map(steps.__getitem__, places):
            decision = "joins" if step["kept"] else "is left out"
            with_it = "" if step["correct"] is None else f": {100 * step['correct'] / step['n']:.2f} % with it"
            texts.append(f"{step['ingredient']} {decision}{with_it}")
        describe(marks, texts)
    figure.legend(loc="outside lower center", ncols=3, fontsize=7)
    return figure


def each_shift(numbers: Numbers) -> Figure:
    """Bars of the main rows on the test set and every shift, with 95% intervals."""
    rows = [numbers.rows[n] for n in ("initialization", "best", "uniform", "greedy", "ensemble") if n in numbers.rows]
    names = [numbers.test, *numbers.present]
    figure, axes = plt.subplots(figsize=(6.4, 2.9), layout="constrained")
    width = 0.84 / len(rows)
    for i, row in enumerate(rows):
        results = [row.results[name] for name in names]
        places = np.arange(len(names)) + (i - (len(rows) - 1) / 2) * width
        shares = np.array([100 * r.accuracy for r in results])
        spread = np.abs(np.array([[100 * r.low, 100 * r.high] for r in results]).T - shares)
        colour = "#999999" if row.name == "initialization" else SPECIAL[row.name][1]
        bars = axes.bar(places, shares, width * 0.92, color=colour, label=label_of(row.name))
        axes.errorbar(places, shares, yerr=spread, fmt="none", ecolor=INK, elinewidth=0.7)
        for bar, r in zip(bars, results, strict=True):
            describe(bar, [f"{label_of(row.name)}, {numbers.title(r.dataset)}: {percent(r.accuracy)} % "
                           f"({percent(r.low)} to {percent(r.high)})"])  # fmt: skip
    titles = [numbers.title(name) for name in names]
    axes.set_xticks(np.arange(len(names)), titles, rotation=15 if _long(titles) else 0)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("Accuracy (top-1, %)")
    figure.legend(loc="outside lower center", ncols=5, fontsize=7)
    return figure


def contact_sheet(contact: dict[str, np.ndarray]) -> Figure:
    """A row of images of each data set; contact: title -> images_BHWC in uint8."""
    columns = max(len(images) for images in contact.values())
    figure, grid = plt.subplots(
        len(contact), columns, figsize=(columns * 0.5 + 1.7, len(contact) * 0.52), squeeze=False
    )
    for panels, (title, images_BHWC) in zip(grid, contact.items(), strict=True):
        for panel, image_HWC in zip(panels, images_BHWC, strict=False):
            panel.imshow(image_HWC, interpolation="nearest")
        for panel in panels:
            panel.set_axis_off()
        panels[0].text(-0.15, 0.5, title, transform=panels[0].transAxes, ha="right", va="center")
    figure.subplots_adjust(
        left=1.7 / (columns * 0.5 + 1.7), right=0.995, top=0.99, bottom=0.01, wspace=0.06, hspace=0.08
    )
    return figure


# ---- parts that figures share ----


def save(figure: Figure, kind: str) -> bytes:
    """The figure as png, pdf or svg, without a date in it; the svg has no ground of its own."""
    buffer = io.BytesIO()
    metadata = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[kind]
    figure.savefig(buffer, format=kind, dpi=200, metadata=metadata, transparent=kind == "svg")
    return buffer.getvalue()


def close(figure: Figure) -> None:
    plt.close(figure)


def rate_ticks(axes: Axes, low: float, high: float) -> None:
    """Learning rates on a vertical logarithmic axis, as 5e-4: decades, and their 2 and 5 where there are few."""
    steps = (1.0, 2.0, 5.0) if high / low < 1000 else (1.0,)
    places = [m * 10.0**e for e in range(-12, 2) for m in steps]
    axes.yaxis.set_major_locator(FixedLocator([x for x in places if low <= x <= high]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0e}".replace("e-0", "e-")))


def told(recipe: Recipe) -> str:
    """A recipe in a line."""
    return (
        f"learning rate {recipe.lr:.2e}, weight decay {recipe.weight_decay:.2g}, {recipe.epochs} epochs, "
        f"smoothing {recipe.label_smoothing:.2f}, mixup {recipe.mixup:.2f}, {recipe.aug}"
    )


def _long(labels: Sequence[str]) -> bool:
    return sum(map(len, labels)) > 80


def _said(numbers: Numbers, row: Measured) -> str:
    return f"test {percent(row.accuracy(numbers.test))} %, mean of shifts {percent(numbers.shift_mean(row))} %"


def _place(numbers: Numbers, row: Measured) -> tuple[float, float]:
    """Test accuracy and mean over the shifts that there are, which the label names, in per cent; NaN if none is."""
    shifts = [row.accuracy(name) for name in numbers.present]
    return 100 * row.accuracy(numbers.test), 100 * sum(shifts) / len(shifts) if shifts else float("nan")


def _shifts_label(numbers: Numbers) -> str:
    there, wanted = len(numbers.present), len(numbers.shifts)
    if there == wanted:
        return f"Mean of the {wanted} distribution shifts (%)"
    return f"Mean of {there} of the {wanted} shifts (others not available) (%)" if there else "No shift is available"
