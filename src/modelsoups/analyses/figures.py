"""The figures of the analyses, each drawn from the rows of its data file; style and colours as the report's."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from modelsoups.analyses.figures_counts import budget, calibration, curves, trajectory
from modelsoups.analyses.style import BLUE, GREEN, LABELS, NAMES, PINK, RED, Rows, legend, panels_of
from modelsoups.report.figures import INK, SPECIAL, rate_ticks

PLACES = {"theta_0": (-14, -4), "theta_1": (5, -9), "theta_2": (5, 3)}  # of the letters: the points can be close
HALO = [withStroke(linewidth=1.5, foreground="white")]  # letters are read on light and on dark


def draw(name: str, rows: Rows) -> Figure | None:
    """The figure of an analysis; None for a table."""
    if name.startswith(("figure_B1", "figure_H")):
        return curves(rows)
    makers = {
        "figure_2": landscapes,
        "figure_3": advantage,
        "figure_4": soup_and_ensemble,
        "figure_K1": predicted,
        "figure_B2": calibration,
        "figure_D1": wise,
        "figure_F1": grids,
        "figure_G4": budget,
        "figure_L1": trajectory,
        "figure_L2": trajectory,
        "figure_L3": scatter,
    }
    return makers[name](rows) if name in makers else None


# ---- section 3.2 ----


def landscapes(rows: Rows) -> Figure:
    """A row of panels a landscape: contours of train loss, test error, shift error; the three models marked."""
    rows = [r for r in rows if "landscape" in r]
    names = list(dict.fromkeys(r["landscape"] for r in rows))
    keys = [k for k in ("train_loss", "test_error", "shift_error") if rows[0][k] is not None]
    titles = {"train_loss": "train loss (nats)", "test_error": "test error (%)", "shift_error": "shift error (%)"}
    figure, panels = panels_of(len(keys), 2.5, 2.35, len(names))
    for i, name in enumerate(names):
        here = [r for r in rows if r["landscape"] == name]
        for j, key in enumerate(keys):
            panel = panels[i * len(keys) + j]
            _landscape(figure, panel, here, key)
            panel.set_title(f"$\\theta_2$: {name}\n{titles[key]}", fontsize=7.5)
    marks = {"*": "$\\theta_0$, initialization", "s": "$\\theta_1$", "D": "$\\theta_2$", "X": "best point of the grid"}
    handles = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=m,
            color="white" if m == "X" else RED,
            markeredgecolor=INK if m == "X" else RED,
            markeredgewidth=0.5,
            label=label,
        )
        for m, label in marks.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=7)
    return figure


def _landscape(figure: Figure, panel: Any, rows: Rows, key: str) -> None:
    grid = [r for r in rows if r["model"] is None]
    xs, ys = (sorted({r[axis] for r in grid}) for axis in ("x", "y"))
    scale = 1 if key == "train_loss" else 100
    value = {(r["x"], r["y"]): scale * r[key] for r in grid}
    z = np.array([[value[x, y] for x in xs] for y in ys])
    models = {r["model"]: r for r in rows if r["model"]}
    # Contours as far as the worst of the three models and a little beyond; what is worse is of one colour.
    low = min(z.min(), min(scale * r[key] for r in models.values()))
    high = max(scale * r[key] for r in models.values())
    top = high + 0.5 * (high - low)
    top = top if key == "train_loss" else min(top, 100.0)
    levels = np.linspace(min(low, top - 1e-3), top, 11)  # a flat landscape has one colour
    shades = panel.contourf(xs, ys, z, levels=levels, cmap="viridis", extend="max")
    if z.min() < levels[1] < z.max():
        panel.contour(xs, ys, z, levels=levels[1:], colors="white", linewidths=0.3)
    figure.colorbar(shades, ax=panel, pad=0.02, format="%.3g").ax.tick_params(labelsize=6)
    begin = models["theta_0"]
    for name, marker in (("theta_0", "*"), ("theta_1", "s"), ("theta_2", "D")):
        m = models[name]
        if name != "theta_0":
            panel.annotate(
                "",
                (m["x"], m["y"]),
                (begin["x"], begin["y"]),
                arrowprops={"arrowstyle": "->", "color": "white", "lw": 0.9},
            )
        panel.plot(
            m["x"],
            m["y"],
            marker,
            color=RED,
            markersize=8 if marker == "*" else 5,
            markeredgecolor="white",
            markeredgewidth=0.7,
        )
        panel.annotate(
            f"$\\theta_{name[-1]}$",
            (m["x"], m["y"]),
            textcoords="offset points",
            xytext=PLACES[name],
            fontsize=8,
            path_effects=HALO,
        )
    best = min(grid, key=lambda r: r[key])
    panel.plot(best["x"], best["y"], "X", color="white", markeredgecolor=INK, markeredgewidth=0.5, markersize=6)
    panel.set_xlabel("$u_1$", fontsize=7, labelpad=1)
    panel.set_ylabel("$u_2$", fontsize=7, labelpad=1)
    panel.tick_params(labelsize=6)
    panel.grid(False)


def advantage(rows: Rows) -> Figure:
    figure, (panel,) = panels_of(1, 4.0, 3.0)
    marks = {"seed": ("o", BLUE), "learning rate": ("s", RED), "augmentation": ("^", GREEN), "several": ("D", PINK)}
    for kind, (marker, colour) in marks.items():
        here = [r for r in rows if r["kind"] == kind]
        if here:
            panel.scatter(
                [r["angle"] for r in here],
                [100 * r["advantage"] for r in here],
                marker=marker,
                s=18,
                color=colour,
                alpha=0.8,
                linewidths=0,
                label=f"differ in {kind}",
            )
    panel.axhline(0, color="grey", linewidth=0.7)
    panel.set_xlabel(r"angle $\phi$ between $\theta_1-\theta_0$ and $\theta_2-\theta_0$ (degrees)")
    panel.set_ylabel("interpolation advantage\n(points, mean of test and shifts)")
    legend(figure, panel)
    return figure


def soup_and_ensemble(rows: Rows) -> Figure:
    keys = [on for on in ("test", "shifts") if rows[0]["soup"][on] is not None]
    figure, panels = panels_of(len(keys), 3.1, 2.9)
    for panel, on in zip(panels, keys, strict=True):
        x, y = ([100 * r[kind][on] for r in rows] for kind in ("soup", "ensemble"))
        dots = panel.scatter(
            x,
            y,
            c=[r["lr"] for r in rows],
            cmap="viridis",
            norm=LogNorm(*_limits([r["lr"] for r in rows])),
            s=18,
            edgecolors="white",
            linewidths=0.3,
        )
        ends = [min(*x, *y), max(*x, *y)]
        panel.plot(ends, ends, "--", color="grey", linewidth=0.8, zorder=0)
        panel.set_title(LABELS[on])
        panel.set_xlabel("soup of two")
        panel.set_ylabel("ensemble of two")
        panel.set_aspect("equal", adjustable="datalim")
    _rate_bar(figure, dots, panels[-1], [r["lr"] for r in rows], "larger learning rate of the two")
    return figure


def predicted(rows: Rows) -> Figure:
    """Top: beta calibrated, bottom: beta 1. Loss with all rates, loss and error without the highest."""
    figure, panels = panels_of(3, 2.5, 2.2, 2)
    columns = (
        ("loss, all learning rates", False, "truth"),
        ("loss, without the highest rate", True, "truth"),
        ("error, without the highest rate", True, "error"),
    )
    for i, (kind, label) in enumerate((("calibrated", r"$\beta$ calibrated"), ("plain", r"$\beta=1$"))):
        for j, (title, moderate, against) in enumerate(columns):
            panel = panels[3 * i + j]
            here = [r for r in rows if (r["moderate"] or not moderate) and 0 < r["alpha"] < 1]
            y = [100 * r["error"] if against == "error" else r[kind]["truth"] for r in here]
            dots = panel.scatter(
                [r[kind]["value"] for r in here],
                y,
                c=[r["lr"] for r in here],
                cmap="viridis",
                s=5,
                norm=LogNorm(*_limits([r["lr"] for r in rows])),
                linewidths=0,
            )
            panel.axhline(0, color="grey", linewidth=0.6)
            panel.axvline(0, color="grey", linewidth=0.6)
            if against == "truth":
                panel.axline((0, 0), slope=1, color="grey", linewidth=0.6, linestyle="--")
            panel.set_title(f"{title}\n{label}", fontsize=7.5)
            panel.set_ylabel(
                "soup - ensemble, error (points)" if against == "error" else "soup - ensemble, loss (nats)"
            )
            panel.tick_params(labelsize=6)
            if i:
                panel.set_xlabel("approximation (1)")
    _rate_bar(figure, dots, panels, [r["lr"] for r in rows], "larger learning rate of the two")
    return figure


def _rate_bar(figure: Figure, dots: Any, panels: Any, rates: list[float], label: str) -> None:
    bar = figure.colorbar(dots, ax=panels, label=label, shrink=0.8, pad=0.02)
    rate_ticks(bar.ax, *_limits(rates))


def _limits(rates: list[float]) -> tuple[float, float]:
    return min(rates), max(rates) if max(rates) > min(rates) else 1.01 * min(rates)


# ---- accuracies against each other ----


def wise(rows: Rows) -> Figure:
    pools = list(dict.fromkeys(r["pool"] for r in rows))
    figure, panels = panels_of(len(pools), 3.6, 3.2)
    titles = {"random": "random search, LP", "standard_zs": "standard grid, zero-shot"}
    for panel, pool in zip(panels, pools, strict=True):
        here = [r for r in rows if r["pool"] == pool and "model" in r]
        start = next(r for r in here if r["model"] == "initialization")
        names = [n for n in dict.fromkeys(r["model"] for r in here) if n != "initialization"]
        singles = [n for n in names if n not in ("uniform", "greedy")]
        for name in names:
            line = sorted([start, *(r for r in here if r["model"] == name)], key=lambda r: r["alpha"])
            x, y = [100 * r["test"] for r in line], [100 * r["shifts"] for r in line]
            if name in singles:
                label = "individual models, towards the initialization" if name == singles[0] else None
                panel.plot(x, y, "-", color="grey", alpha=0.5, linewidth=0.8, marker=".", markersize=3, label=label)
            else:
                marker, colour = SPECIAL[name]
                panel.plot(x, y, "-", color=colour, linewidth=1.3, marker=".", markersize=4, zorder=3)
                panel.plot(
                    x[-1],
                    y[-1],
                    marker,
                    color=colour,
                    markersize=8,
                    markeredgecolor="white",
                    zorder=4,
                    label=NAMES[name],
                )
        panel.plot(100 * start["test"], 100 * start["shifts"], "*", color=INK, markersize=9, label="initialization")
        panel.set_title(titles.get(pool, pool))
        panel.set_xlabel(LABELS["test"])
        panel.set_ylabel(LABELS["shifts"])
    legend(figure, panels[0])
    return figure


def scatter(rows: Rows) -> Figure:
    rows = [r for r in rows if "method" in r]
    figure, (panel,) = panels_of(1, 4.8, 3.6)
    on = "shifts" if rows[0]["shifts"] is not None else "test"
    singles = [r for r in rows if r["method"] == "individual"]
    rates = [r["lr"] if r["lr"] is not None else float("nan") for r in singles]
    known = [r for r in rates if r == r]
    if known:
        dots = panel.scatter(
            [100 * r["test"] for r in singles],
            [100 * r[on] for r in singles],
            c=rates,
            cmap="viridis",
            norm=LogNorm(*_limits(known)),
            s=22,
            label="individual models",
        )
        _rate_bar(figure, dots, panel, known, "learning rate")
    others = {**SPECIAL, "second_best": ("d", GREEN), "learned": ("v", PINK)}
    for r in rows:
        if r["method"] in others:
            marker, colour = others[r["method"]]
            panel.scatter(
                100 * r["test"],
                100 * r[on],
                marker=marker,
                s=60,
                color=colour,
                edgecolors="white",
                linewidths=0.6,
                label=NAMES[r["method"]],
                zorder=3,
            )
    panel.set_xlabel(LABELS["test"])
    panel.set_ylabel(LABELS[on])
    legend(figure, panel, 3)
    return figure


def grids(rows: Rows) -> Figure:
    """A square a grid: colour and number are the points that the average of the endpoints gains."""
    names = list(dict.fromkeys(r["grid"] for r in rows))
    figure, panels = panels_of(len(names), 2.6, 2.6)
    most = max(0.5, *(min(5.0, abs(100 * r["gain"])) for r in rows))
    for panel, name in zip(panels, names, strict=True):
        here = [r for r in rows if r["grid"] == name]
        labels = list(dict.fromkeys([r["a"] for r in here] + [r["b"] for r in here]))
        z = np.full((len(labels), len(labels)), np.nan)
        for r in here:
            z[labels.index(r["b"]), labels.index(r["a"])] = 100 * r["gain"]
        shades = panel.imshow(z, cmap="RdBu", vmin=-most, vmax=most, origin="lower")
        for (i, j), value in np.ndenumerate(z):
            if value == value:
                panel.text(
                    j,
                    i,
                    f"{value:+.1f}" if abs(value) < 9.95 else f"{value:+.0f}",
                    ha="center",
                    va="center",
                    fontsize=6,
                    color="white" if abs(value) > 0.6 * most else "black",
                )
        panel.set_xticks(range(len(labels)), labels, rotation=45, fontsize=6)
        panel.set_yticks(range(len(labels)), labels, fontsize=6)
        panel.set_title(name)
        panel.set_xlabel("one endpoint")
        panel.set_ylabel("the other endpoint")
        panel.grid(False)
    figure.colorbar(shades, ax=panels, label="average of the endpoints less\nbest model between (points)", shrink=0.7)
    return figure
