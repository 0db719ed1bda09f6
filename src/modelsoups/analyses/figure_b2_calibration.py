"""Accuracy and calibration of soups and ensembles of models with different seeds (Figure B.2)."""

import functools
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from modelsoups.analyses.analysis import PAPER, Analysis
from modelsoups.analyses.bench import Bench, kept
from modelsoups.analyses.choosing import need_holdout
from modelsoups.analyses.figure_g4_seeds import seeds_of
from modelsoups.analyses.points import hashes
from modelsoups.analyses.rows import Rows, distinct, having, interval, means_by_count, select
from modelsoups.report.plotting import BLUE, ORANGE, count_axis, legend, panels_of
from modelsoups.soup.coefficients import Ingredient
from modelsoups.stats import calibration, scores
from modelsoups.stats.scores import Logits
from modelsoups.weights.state_dicts import EVERYTHING, State, mix

MARKS = {
    "soup": ("o", BLUE, "-"),
    "ensemble": ("s", ORANGE, "-"),
    "calibrated soup": ("o", BLUE, "--"),
    "calibrated ensemble": ("s", ORANGE, "--"),
}
SHOWN = {"accuracy": "accuracy (%)", "ece": "calibration error, ECE (%)"}


def _rows(bench: Bench) -> Rows:
    need_holdout(bench)
    seeds = tuple(seeds_of(bench, choosing=True))
    tasks = [seeds[:count] for count in range(1, len(seeds) + 1)]
    rows: Rows = []
    for found in bench.run_tasks(_scored, tasks, "calibration"):
        rows += found
    for row in rows:
        row["role"] = "test" if row["dataset"] == bench.test else "shift"
    return rows + _differences(bench, seeds)


def _scored(bench: Bench, seeds: tuple[Ingredient, ...]) -> Rows:
    """Return accuracy, ECE and loss by method and data set for these models, cached in a file."""
    sets = [[n, bench.images.dataset(n).sha256, len(bench.images.positions(n))] for n in bench.tests]
    key = [hashes(seeds), sets, bench.images.dataset(bench.holdout).sha256]
    path = bench.kept_path(key, __name__, calibration.__name__)
    return list(kept(path, functools.partial(_score, bench, seeds)))


def _score(bench: Bench, seeds: tuple[Ingredient, ...]) -> Rows:
    rows: Rows = []
    for method in MARKS:
        for name in bench.tests:
            logits = _logits(bench, seeds, method, name)
            both = logits.logits_NC, logits.labels_N
            row: dict[str, Any] = {"k": len(seeds), "method": method, "dataset": name}
            row["accuracy"] = scores.accuracy(*both)
            row["ece"] = calibration.ece(*both, _bins(logits))
            row["ece_sweep"] = calibration.ece_sweep(*both)
            row["loss"] = scores.cross_entropy(*both)
            rows.append(row)
    return rows


def _confidence(logits: Logits) -> Any:
    return calibration.confidence(logits.logits_NC, logits.labels_N)


def _bins(logits: Logits) -> int:
    return min(calibration.BINS, len(logits.labels_N))


def _logits(bench: Bench, seeds: Sequence[Ingredient], method: str, name: str) -> Logits:
    """Return a soup's or ensemble's logits; "calibrated" scales each model's logits by its beta."""
    betas = [_beta(bench, i) if method.startswith("calibrated") else 1.0 for i in seeds]
    if method.endswith("ensemble"):
        each = [bench.logits(i, name) for i in seeds]
        scaled = [beta * x.logits_NC for beta, x in zip(betas, each, strict=True)]
        return Logits(name, scores.ensemble(scaled), each[0].labels_N)
    states = list(map(_scaled, map(bench.weights, seeds), betas))
    return bench.images.forward(name, mix(states, {EVERYTHING: [1 / len(states)] * len(states)}))


def _beta(bench: Bench, ingredient: Ingredient) -> float:
    holdout = bench.logits(ingredient, bench.holdout)
    return calibration.calibrating_beta(holdout.logits_NC, holdout.labels_N)


def _scaled(state: State, beta: float) -> State:
    """Return the weights with the head multiplied by beta, which multiplies the logits by beta."""
    if beta == 1:
        return state
    return {k: t * beta if k.startswith("head.") else t for k, t in state.items()}


def _differences(bench: Bench, seeds: Sequence[Ingredient]) -> Rows:
    """Return differences in test ECE between individual models (mean), soup and ensemble."""
    found = {method: [_logits(bench, seeds, method, bench.test)] for method in ("soup", "ensemble")}
    bins = _bins(found["soup"][0])
    found["individuals"] = [bench.logits(i, bench.test) for i in seeds]
    rows: Rows = []
    for a, b in (("individuals", "ensemble"), ("soup", "individuals"), ("soup", "ensemble")):
        ours, others = (list(map(_confidence, found[method])) for method in (a, b))
        estimate = calibration.ece_difference(ours, others, bins)
        rows.append({"comparison": f"ECE, {a} - {b}", "test": interval(estimate)})
    return rows


def _draw(rows: Rows) -> Figure:
    """Draw accuracy and ECE by number of seeds: test set (top), mean of the shifts (bottom)."""
    rows = having(rows, "role")
    roles = sorted(distinct(rows, "role"), reverse=True)
    figure, panels = panels_of(2, 3.1, 2.3, len(roles))
    places = iter(panels)
    for role in roles:
        for key, label in SHOWN.items():
            panel, here = next(places), select(rows, role=role)
            for method in MARKS:
                if key == "ece" or not method.startswith("calibrated"):  # little or no change of accuracy
                    _draw_method(panel, method, select(here, method=method), key)
            panel.set(title="test" if role == "test" else "mean of shifts", ylabel=label)
            count_axis(panel, "number of models (seeds)")
    legend(figure, panels[1])
    return figure


def _draw_method(panel: Axes, method: str, rows: Rows, key: str) -> None:
    marker, colour, dash = MARKS[method]
    face = "white" if dash == "--" else colour
    look: dict[str, Any] = {"marker": marker, "color": colour, "linestyle": dash, "markerfacecolor": face}
    panel.plot(*means_by_count(rows, key), markersize=4, label=method, **look)


CALIBRATION = Analysis(**PAPER["figure_B2"], rows=_rows, draw=_draw)
