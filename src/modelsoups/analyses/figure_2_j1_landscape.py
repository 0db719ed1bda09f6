"""Loss and error on the plane of the initialization and two fine-tuned models (Figures 2, J.1)."""

import itertools
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from modelsoups.analyses.analysis import PAPER, Analysis, Verdicts, compared, comparison
from modelsoups.analyses.bench import Bench
from modelsoups.analyses.members import OWN, Member, Unavailable
from modelsoups.analyses.points import Measures, Point, correctness
from modelsoups.analyses.rows import ON, Rows, column, distinct, having, interval, select
from modelsoups.report.plotting import INK, RED, panels_of
from modelsoups.soup.coefficients import Ingredient
from modelsoups.stats import intervals
from modelsoups.weights.planes import Plane, plane

WHITE = "#fefefe"  # stays white on dark pages, where #ffffff becomes the page's background
MARKED = ("theta_0", "theta_1", "theta_2", "middle")
BARRIER = "learning rate x 10"  # the paper finds a rise of the error between these two solutions
TITLES = {"train_loss": "train loss (nats)", "test_error": "test error (%)", "shift_error": "shift error (%)"}
LETTERS = {"theta_0": (-14, -4), "theta_1": (5, -9), "theta_2": (5, 3)}  # of labels, in points
LEGEND = (
    ("$\\theta_0$, initialization", "*", RED, RED),
    ("$\\theta_1$", "s", RED, RED),
    ("$\\theta_2$", "D", RED, RED),
    ("best point of the grid", "X", WHITE, INK),
)
HALO = [withStroke(linewidth=1.5, foreground="white")]  # makes labels readable on light and dark


def _rows(bench: Bench) -> Rows:
    bench = bench.looking_at(bench.settings.grid_images)
    rows: Rows = []
    for name, start, one, two in _triples(bench):
        three = (start, one.ingredient, two.ingredient)
        rows += _landscape(bench, name, three, plane(*map(bench.weights, three)))
    return rows


def _triples(bench: Bench) -> list[tuple[str, Ingredient, Member, Member]]:
    """Return (label, initialization, first model, second model) for each landscape.

    The second model differs by its seed, or has 0.1 or 10 times the learning rate. Without such
    models, use the run's models with the highest and the lowest learning rate.
    """
    rate = bench.settings.rates[0]
    for init in ("zeroshot", "lp"):
        try:
            one = bench.find(init, lr=rate, aug="minimal", seed=0)
            twin = bench.find(init, lr=rate, aug="minimal", seed=1)
            low = bench.find(init, lr=rate * 0.1, aug="minimal")
            high = bench.find(init, lr=rate * 10.0, aug="minimal")
        except Unavailable:
            continue
        start, others = bench.start(one.pool), (twin, low, high)
        names = ("another seed", "learning rate x 0.1", BARRIER)
        return [(name, start, one, other) for name, other in zip(names, others, strict=True)]
    known = [m for m in bench.pool(OWN) if m.ingredient.recipe is not None]
    if len(known) < 2:
        raise Unavailable("the analysis needs two models whose hyperparameters are known")
    members = sorted(known, key=lambda m: m.lr)
    return [("lowest and highest learning rate", bench.start(OWN), members[-1], members[0])]


def _landscape(bench: Bench, name: str, three: tuple[Ingredient, ...], found: Plane) -> Rows:
    xs, ys = found.grid(bench.settings.grid)
    middle = tuple((a + b) / 2 for a, b in zip(*found.points[1:], strict=True))
    places = [*found.points, middle, *((x, y) for y in ys for x in xs)]
    points = [Point(three, found.coefficients(*place)) for place in places]
    train = bench.train
    sets = [train, *bench.tests] if train else bench.tests
    measured = bench.measure(points, f"landscape, {name}", sets)
    rows: Rows = []
    names = itertools.chain(MARKED, itertools.repeat(None))
    for (x, y), model, m in zip(places, names, measured, strict=False):
        row: dict[str, Any] = {"landscape": name, "x": x, "y": y, "model": model}
        row["train_loss"] = m[train].loss if train else None
        row["test_error"] = 1 - m[bench.test].accuracy
        shifts = bench.accuracies(m)["shifts"]
        row["shift_error"] = None if shifts is None else 1 - shifts
        rows.append({**row, "angle": found.angle})
    _, one, two, mid = measured[:4]
    if name == BARRIER:
        return [*rows, comparison(f"ends - middle, {name}", bench, [(one, mid), (two, mid)])]
    rows.append(comparison(f"middle - ends, {name}", bench, [(mid, one), (mid, two)]))
    return [*rows, {"comparison": f"plane - three, {name}", **_gain_of_plane(bench, measured)}]


def _gain_of_plane(bench: Bench, measured: list[Measures]) -> dict[str, dict[str, float]]:
    """Return the best accuracy on the plane minus the best of the three models that span it.

    Both maxima are chosen on one half of the images and measured on the other half. On the same
    images, the best of many grid points would win by chance.
    """
    found = {}
    for on, names in bench.columns.items():
        correct_PN = correctness(measured, names)
        gains_N = [np.zeros(c_PN.shape[1]) for c_PN in correct_PN]
        for fold in (0, 1):
            accuracy_P = np.mean([c_PN[:, fold::2].mean(axis=1) for c_PN in correct_PN], axis=0)
            best, model = int(accuracy_P.argmax()), int(accuracy_P[:3].argmax())
            for gain_N, c_PN in zip(gains_N, correct_PN, strict=True):
                gain_N[1 - fold :: 2] = (c_PN[best] - c_PN[model])[1 - fold :: 2]
        found[on] = interval(intervals.mean_interval(gains_N))
    return found


def _verdicts(rows: Rows) -> Verdicts:
    found = []
    for name in distinct(having(rows, "landscape"), "landscape"):
        figure = "Figure J.1" if name == BARRIER else "Figure 2"
        for on, where in ON:
            text = f"Some point of the plane is better than all three models {where} (second model: {name})"
            found += compared(rows, f"plane - three, {name}", on, text, figure)
            text = f"Halfway between the two solutions, accuracy is above their mean {where} (second model: {name})"
            found += compared(rows, f"middle - ends, {name}", on, text, figure)
            text = text.replace("above", "below")
            found += compared(rows, f"ends - middle, {name}", on, text, figure)
    return found


def _draw(rows: Rows) -> Figure:
    """Draw a row of panels per landscape: contours of train loss, test error and shift error."""
    rows = having(rows, "landscape")
    names = distinct(rows, "landscape")
    keys = [key for key in TITLES if rows[0][key] is not None]
    figure, panels = panels_of(len(keys), 2.5, 2.35, len(names))
    places = iter(panels)
    for name in names:
        for key in keys:
            panel = next(places)
            _contours(figure, panel, select(rows, landscape=name), key)
            panel.set_title(f"$\\theta_2$: {name}\n{TITLES[key]}", fontsize=7.5)
    handles = []
    for label, marker, colour, edge in LEGEND:
        look: dict[str, Any] = {"color": colour, "markeredgecolor": edge, "markeredgewidth": 0.5}
        handles.append(Line2D([], [], linestyle="none", marker=marker, label=label, **look))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=7)
    return figure


def _contours(figure: Figure, panel: Axes, rows: Rows, key: str) -> None:
    scale = 1 if key == "train_loss" else 100
    grid = select(rows, model=None)
    models = {row["model"]: row for row in rows if row["model"]}
    ends = column(list(models.values()), key, scale)
    xs, ys = sorted(distinct(grid, "x")), sorted(distinct(grid, "y"))
    z = np.empty((len(ys), len(xs)))
    for row in grid:
        z[ys.index(row["y"]), xs.index(row["x"])] = scale * row[key]
    # Contours stop a little above the worst of the three models; all higher values have one colour.
    low, high = min(z.min(), *ends), max(ends)
    top = high + 0.5 * (high - low)
    top = top if key == "train_loss" else min(top, 100.0)
    levels = np.linspace(min(low, top - 1e-3), top, 11)  # a flat landscape has one colour
    shades = panel.contourf(xs, ys, z, levels=levels, cmap="viridis", extend="max")
    if z.min() < levels[1] < z.max():
        panel.contour(xs, ys, z, levels=levels[1:], colors=WHITE, linewidths=0.3)
    figure.colorbar(shades, ax=panel, pad=0.02, format="%.3g").ax.tick_params(labelsize=6)
    _mark_models(panel, models)
    best = min(grid, key=lambda row: row[key])
    look: dict[str, Any] = {"markeredgecolor": INK, "markeredgewidth": 0.5, "markersize": 6}
    panel.plot(best["x"], best["y"], "X", color=WHITE, **look)
    panel.set_xlabel("$u_1$", fontsize=7, labelpad=1)
    panel.set_ylabel("$u_2$", fontsize=7, labelpad=1)
    panel.tick_params(labelsize=6)
    panel.grid(False)


def _mark_models(panel: Axes, models: dict[str, dict[str, Any]]) -> None:
    """Draw the three models, with arrows from the initialization to the two fine-tuned models."""
    begin = models["theta_0"]
    for name, marker, size in (("theta_0", "*", 8), ("theta_1", "s", 5), ("theta_2", "D", 5)):
        place = models[name]["x"], models[name]["y"]
        if name != "theta_0":
            arrow = {"arrowstyle": "->", "color": WHITE, "lw": 0.9}
            panel.annotate("", place, (begin["x"], begin["y"]), arrowprops=arrow)
        look: dict[str, Any] = {"markeredgecolor": WHITE, "markeredgewidth": 0.7}
        panel.plot(*place, marker, color=RED, markersize=size, **look)
        look = {"textcoords": "offset points", "fontsize": 8, "path_effects": HALO}
        panel.annotate(f"$\\theta_{name[-1]}$", place, xytext=LETTERS[name], **look)


LANDSCAPE = Analysis(**PAPER["figure_2"], rows=_rows, judge=_verdicts, draw=_draw)
