"""Figures for print and page, in one style: Figure 1, Figure B.1, and a contact sheet of the data.

Colours are Okabe and Ito's, which colour-blind readers tell apart; shapes differ too.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from modelsoups.evidence import Row
from modelsoups.reporting.compare import Numbers
from modelsoups.reporting.tables import label_of

SPECIAL = {  # row -> marker, colour
    "initialization": ("*", "#000000"),
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
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.hashsalt": "modelsoups",  # the same figure, the same bytes
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}


@contextmanager
def style() -> Iterator[None]:
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        matplotlib.use("Agg")
        yield


def figure_1(numbers: Numbers) -> Figure:
    """Test accuracy against the mean of shifts: ingredients by learning rate, soups and ensembles as marks."""
    figure, axes = plt.subplots(figsize=(4.6, 3.4), layout="constrained")
    individuals = [r for r in numbers.evidence.individuals.values() if r.recipe is not None]
    xs, ys = zip(*[_place(numbers, row) for row in individuals], strict=True)
    rates = [row.recipe.lr for row in individuals if row.recipe is not None]
    dots = axes.scatter(xs, ys, c=rates, cmap="viridis", norm=LogNorm(), s=26, alpha=0.9,
                        edgecolors="white", linewidths=0.4, label="Fine-tuned models")  # fmt: skip
    figure.colorbar(dots, ax=axes, label="Learning rate", pad=0.01)
    for name, (marker, colour) in SPECIAL.items():
        if name in numbers.evidence.rows:
            x, y = _place(numbers, numbers.evidence.rows[name])
            axes.scatter(x, y, marker=marker, s=70, color=colour, edgecolors="white", linewidths=0.6,
                         label=label_of(name), zorder=3)  # fmt: skip
    axes.set_xlabel(f"{_title(numbers, numbers.test)} accuracy (top-1, %)", parse_math=False)
    axes.set_ylabel(_shifts_label(numbers), parse_math=False)
    figure.legend(loc="outside lower center", ncols=3, fontsize=7)
    return figure


def figure_b1(numbers: Numbers) -> Figure:
    """Accuracy against the number of models considered, in one random order (appendix B)."""
    figure, panels = plt.subplots(1, 2, figsize=(6.4, 2.7), layout="constrained")
    counts = sorted(numbers.evidence.curve)
    for panel, shift in zip(panels, (False, True), strict=True):
        for method in ("best", "uniform", "greedy", "ensemble"):
            marker, colour = SPECIAL[method]
            rows = [numbers.evidence.curve[k][method] for k in counts]
            values = [_place(numbers, row)[int(shift)] for row in rows]
            panel.plot(counts, values, marker=marker, color=colour, label=label_of(method), markersize=5, linewidth=1.3)
        panel.set_xlabel("Number of models")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_ylabel(
            _shifts_label(numbers) if shift else f"{_title(numbers, numbers.test)} accuracy (%)", parse_math=False
        )
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7)
    return figure


def contact_sheet(numbers: Numbers) -> Figure:
    """A row of images of each data set."""
    contact = numbers.evidence.contact
    columns = max(len(images) for images in contact.values())
    figure, grid = plt.subplots(
        len(contact), columns, figsize=(columns * 0.5 + 1.7, len(contact) * 0.52), squeeze=False
    )
    for panels, (title, images_BHWC) in zip(grid, contact.items(), strict=True):
        for panel, image_HWC in zip(panels, images_BHWC, strict=False):
            panel.imshow(image_HWC, interpolation="nearest")
        for panel in panels:
            panel.set_axis_off()
        panels[0].text(-0.15, 0.5, title, transform=panels[0].transAxes, ha="right", va="center", parse_math=False)
    figure.subplots_adjust(
        left=1.7 / (columns * 0.5 + 1.7), right=0.995, top=0.99, bottom=0.01, wspace=0.06, hspace=0.08
    )
    return figure


def save(figure: Figure, kind: str) -> bytes:
    """The figure as png, pdf or svg, without a date in it."""
    buffer = io.BytesIO()
    metadata = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[kind]
    figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
    return buffer.getvalue()


def _place(numbers: Numbers, row: Row) -> tuple[float, float]:
    """Test accuracy and mean over the shifts that there are, which the label names, in per cent; NaN if none is."""
    shifts = [row.accuracy(name) for name in numbers.present]
    return 100 * row.accuracy(numbers.test), 100 * sum(shifts) / len(shifts) if shifts else float("nan")


def _shifts_label(numbers: Numbers) -> str:
    there, wanted = len(numbers.present), len(numbers.shifts)
    if there == wanted:
        return f"Mean of the {wanted} distribution shifts (%)"
    return f"Mean of {there} of the {wanted} shifts (others not available) (%)" if there else "No shift is available"


def _title(numbers: Numbers, name: str) -> str:
    return next(s.title for s in numbers.evidence.sets if s.name == name)


def close(figure: Figure) -> None:
    plt.close(figure)
