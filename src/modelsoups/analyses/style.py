"""What the figures of the analyses share: colours, words, panels."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

Rows = list[dict[str, Any]]
BLUE, ORANGE, GREEN, RED, PINK, SKY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
)
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
    "individual": "Individual models",
}


def panels_of(count: int, width: float = 3.1, height: float = 2.7, rows: int = 1) -> tuple[Figure, list[Any]]:
    figure, axes = plt.subplots(
        rows, count, figsize=(width * count, height * rows), layout="constrained", squeeze=False
    )
    return figure, list(axes.flat)


def there(rows: Rows) -> list[str]:
    """What accuracies there are: test, and shifts where all of them are."""
    return [on for on in ("test", "shifts") if any(r.get(on) is not None for r in rows)]


def legend(figure: Figure, panel: Any, columns: int = 4) -> None:
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=7)


def laid_out(figure: Figure) -> None:
    """Fix the places of a figure's parts, which would be found anew for each format that it is saved in."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
