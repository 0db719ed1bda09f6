"""Accuracy of all soup methods and all individual models in one figure (Figures 5 and L.3)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from modelsoups.analyses.analysis import PAPER, Analysis
from modelsoups.analyses.bench import Bench
from modelsoups.analyses.choosing import as_listed, choose, need_holdout
from modelsoups.analyses.points import Measures, Point, correctness
from modelsoups.analyses.rows import Rows, column, having, interval, select
from modelsoups.disk import storage
from modelsoups.report.plotting import GREEN, LABELS, NAMES, PINK, SPECIAL, legend, panels_of, rate_bar, scatter_by_rate
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.soup.methods import INDIVIDUAL
from modelsoups.stats import intervals
from modelsoups.weights.state_dicts import EVERYTHING

LEARNED = ("learned", "learned_layers")  # shown only if the soup stage has created them
METHODS = ("best", "second_best", "uniform", "greedy", "ensemble", "greedy_ensemble", *LEARNED)
MARKS = {**SPECIAL, "second_best": ("d", GREEN), "learned": ("v", PINK)}


def _rows(bench: Bench) -> Rows:
    """Return the accuracies of all models and methods; reuse the soup stage's saved soups."""
    need_holdout(bench)
    bench = bench.whole()
    individuals, mixed = bench.contenders()
    bench.evaluate([*individuals, *mixed], choosing=True)
    each = list(map(bench.individual, individuals))
    rows: Rows = []
    for m, measures in zip(individuals, each, strict=True):
        row = {"method": "individual", "model": m.id, "lr": m.recipe.lr if m.recipe else None}
        rows.append({**row, **bench.accuracies(measures)})
    for method in METHODS:
        made, members = bench.files.soup(method).exists(), individuals if method in INDIVIDUAL else mixed
        if made or method not in LEARNED:
            soup = bench.experiment.soups.read(method) if made else choose(bench, members, method)
            measures = _of_soup(bench, soup, members, method)
            rows.append({"method": method, **bench.accuracies(measures)})
            if method == "greedy":
                rows.append({"comparison": "greedy - best of all", **_above_all(bench, measures, each)})
    return rows


def _of_soup(bench: Bench, soup: Soup, members: Sequence[Ingredient], method: str) -> Measures:
    ingredients = as_listed(soup, members)
    if soup.space == "logits":
        return bench.ensemble(ingredients, soup.coefficients[EVERYTHING])
    if set(soup.coefficients) == {EVERYTHING}:
        return bench.measure([Point.of(soup, ingredients)], method)[0]
    sha256 = storage.read_json(bench.files.soup(method))["sha256"]
    return bench.individual(Ingredient(method, "", sha256, None))


def _above_all(bench: Bench, soup: Measures, others: list[Measures]) -> dict[str, dict[str, float]]:
    """Return the soup's accuracy minus the best individual model's, on test set and mean of shifts."""

    def ahead(accuracies_M: Sequence[np.ndarray]) -> float:
        mean_M = np.mean(accuracies_M, axis=0)
        return float(mean_M[0] - mean_M[1:].max())

    found = {}
    for on, names in bench.columns.items():
        found[on] = interval(intervals.bootstrap(correctness([soup, *others], names), ahead))
    return found


def _draw(rows: Rows) -> Figure:
    rows = having(rows, "method")
    figure, (panel,) = panels_of(1, 4.8, 3.6)
    on = "test" if rows[0]["shifts"] is None else "shifts"
    singles = select(rows, method="individual")
    rates = np.array(column(singles, "lr"), float)  # NaN where unknown
    known = rates[~np.isnan(rates)].tolist()
    if known:
        x, y = column(singles, "test", 100), column(singles, on, 100)
        dots = scatter_by_rate(panel, x, y, rates.tolist(), known, s=22, label="individual models")
        rate_bar(figure, dots, panel, known, "learning rate")
    for row in rows:
        if row["method"] in MARKS:
            marker, colour = MARKS[row["method"]]
            place = 100 * row["test"], 100 * row[on]
            look = {"marker": marker, "color": colour, "edgecolors": "white", "linewidths": 0.6}
            panel.scatter(*place, s=60, label=NAMES[row["method"]], zorder=3, **look)
    panel.set(xlabel=LABELS["test"], ylabel=LABELS[on])
    legend(figure, panel, 3)
    return figure


FIGURE_5, METHODS_COMPARED = (Analysis(**PAPER[name], rows=_rows, draw=_draw) for name in ("figure_5", "figure_L3"))
