"""Accuracy gained by averaging two models, against the angle between the models (Figure 3)."""

import numpy as np
from matplotlib.figure import Figure

from modelsoups.analyses.analysis import PAPER, Analysis, Verdicts, correlated, estimated, judged
from modelsoups.analyses.bench import Bench
from modelsoups.analyses.members import OWN, Unavailable
from modelsoups.analyses.pairs import SEVERAL, TOO_HIGH, single_differences
from modelsoups.analyses.points import Measures, between
from modelsoups.analyses.rows import Rows, column, pairs_of, select
from modelsoups.report.plotting import BLUE, GREEN, PINK, RED, legend, panels_of
from modelsoups.stats import correlations
from modelsoups.weights import state_dicts

POOLS = (OWN, "standard_lp", "seeds", "theory")
MARKS = {"seed": ("o", BLUE), "learning rate": ("s", RED), "augmentation": ("^", GREEN), SEVERAL: ("D", PINK)}


def _rows(bench: Bench) -> Rows:
    pairs = single_differences(bench, list(filter(bench.runs.__contains__, POOLS)))
    if not pairs:
        limit = TOO_HIGH * bench.settings.rates[0]
        raise Unavailable(f"the analysis needs two models with known recipes and learning rates below {limit:g}")
    start = bench.weights(bench.start(OWN))
    bench.evaluate([m.ingredient for one, two, _ in pairs for m in (one, two)])
    points = [between(one.ingredient, two.ingredient) for one, two, _ in pairs]
    rows: Rows = []
    for (one, two, kind), middle in zip(pairs, bench.measure(points, "figure 3"), strict=True):
        a, b = (_mean(bench, bench.individual(m.ingredient)) for m in (one, two))
        angle = state_dicts.angle(start, *map(bench.weights, (one.ingredient, two.ingredient)))
        row = {"a": one.name, "b": two.name, "kind": kind, "angle": angle}
        gain = _mean(bench, middle) - (a + b) / 2
        rows.append({**row, "advantage": gain, "lr": max(one.lr, two.lr)})
    return rows


def _mean(bench: Bench, measures: Measures) -> float:
    """Return the mean accuracy over the test set and all shifts, which Figure 3 uses."""
    return float(np.mean([measures[name].accuracy for name in bench.tests]))


def _verdicts(rows: Rows) -> Verdicts:
    models, gains, angles = pairs_of(rows), column(rows, "advantage"), column(rows, "angle")
    text = "The average of two models' weights is more accurate than the two models on average"
    found = [judged(text, "section 3.2", estimated(correlations.mean(gains, models)))]
    more = [kind != "seed" for kind in column(rows, "kind")]
    if any(more) and not all(more):
        d = correlations.difference(angles, more, models)
        text = "Two models that differ in hyperparameters have a larger angle than two that differ in seed (degrees)"
        found.append(judged(text, "Figure 3", estimated(d), unit=""))
    text = "The interpolation advantage grows with the angle"
    return found + correlated(text, "Figure 3", angles, gains, models)


def _draw(rows: Rows) -> Figure:
    figure, (panel,) = panels_of(1, 4.0, 3.0)
    for kind, (marker, colour) in MARKS.items():
        if here := select(rows, kind=kind):
            x, y = column(here, "angle"), column(here, "advantage", 100)
            look = {"marker": marker, "color": colour, "s": 18, "alpha": 0.8, "linewidths": 0}
            panel.scatter(x, y, label=f"differ in {kind}", **look)
    panel.axhline(0, color="grey", linewidth=0.7)
    angle = r"angle $\phi$ between $\theta_1-\theta_0$ and $\theta_2-\theta_0$ (degrees)"
    panel.set(xlabel=angle, ylabel="interpolation advantage\n(points, mean of test and shifts)")
    legend(figure, panel)
    return figure


ANGLE = Analysis(**PAPER["figure_3"], rows=_rows, judge=_verdicts, draw=_draw)
