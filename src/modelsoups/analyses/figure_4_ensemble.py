"""Accuracy of soups of two models against ensembles of the same two models (Figure 4)."""

import itertools

import numpy as np
from matplotlib.figure import Figure

from modelsoups.analyses.analysis import PAPER, Analysis, Verdicts, correlated, estimated, judged
from modelsoups.analyses.bench import Bench
from modelsoups.analyses.members import Unavailable, models_of
from modelsoups.analyses.pairs import spread, with_recipes
from modelsoups.analyses.points import between
from modelsoups.analyses.rows import Rows, column, measured_on, nested, pairs_of
from modelsoups.report.plotting import LABELS, panels_of, rate_bar, scatter_by_rate
from modelsoups.stats import correlations


def _rows(bench: Bench) -> Rows:
    members = with_recipes(bench)
    pairs = spread(list(itertools.combinations(members, 2)), bench.settings.pairs)
    if not pairs:
        raise Unavailable("the analysis needs two models whose hyperparameters are known")
    bench.evaluate(models_of(members))
    points = [between(one.ingredient, two.ingredient) for one, two in pairs]
    rows: Rows = []
    for (one, two), soup in zip(pairs, bench.measure(points, "figure 4"), strict=True):
        row = {"a": one.name, "b": two.name, "lr": max(one.lr, two.lr)}
        ensemble = bench.accuracies(bench.ensemble([one.ingredient, two.ingredient]))
        rows.append({**row, "soup": bench.accuracies(soup), "ensemble": ensemble})
    return rows


def _verdicts(rows: Rows) -> Verdicts:
    models = pairs_of(rows)
    found = []
    for on in measured_on(column(rows, "soup")):
        soup, ensemble = nested(rows, "soup", on), nested(rows, "ensemble", on)
        text = f"Soup and ensemble accuracy are correlated ({on})"
        found += correlated(text, "Figure 4", soup, ensemble, models)
        gains = np.subtract(ensemble, soup)
        text = "Two-model ensembles are better than two-model soups in distribution"
        if on == "shifts":
            text, gains = "Two-model soups are better than two-model ensembles under shift", -gains
        found.append(judged(text, "Figure 4", estimated(correlations.mean(gains.tolist(), models))))
    return found


def _draw(rows: Rows) -> Figure:
    keys, rates = measured_on(column(rows, "soup")), column(rows, "lr")
    figure, panels = panels_of(len(keys), 3.1, 2.9)
    for panel, on in zip(panels, keys, strict=True):
        x, y = (column(column(rows, kind), on, 100) for kind in ("soup", "ensemble"))
        look = {"s": 18, "edgecolors": "white", "linewidths": 0.3}
        dots = scatter_by_rate(panel, x, y, rates, rates, **look)
        ends = [min(*x, *y), max(*x, *y)]
        panel.plot(ends, ends, "--", color="grey", linewidth=0.8, zorder=0)
        panel.set(title=LABELS[on], xlabel="soup of two", ylabel="ensemble of two")
        panel.set_aspect("equal", adjustable="datalim")
    rate_bar(figure, dots, panels[-1], rates, "larger learning rate of the two")
    return figure


ENSEMBLE = Analysis(**PAPER["figure_4"], rows=_rows, judge=_verdicts, draw=_draw)
