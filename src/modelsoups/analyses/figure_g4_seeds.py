"""Soups and ensembles of the first k models that differ only in their seed (Figure G.4)."""

from matplotlib.figure import Figure

from modelsoups.analyses.analysis import PAPER, Analysis, comparison
from modelsoups.analyses.bench import Bench, Point
from modelsoups.analyses.members import Unavailable
from modelsoups.analyses.rows import Rows, column, having, measured_on, select
from modelsoups.report.plotting import BLUE, GREEN, LABELS, ORANGE, count_axis, legend, panels_of
from modelsoups.soup.coefficients import Ingredient

MARKS = {
    "individual": ("D", GREEN, "none", "individual with seed k"),
    "soup": ("o", BLUE, "-", "soup of seeds 1 to k"),
    "ensemble": ("s", ORANGE, "-", "ensemble of seeds 1 to k"),
}


def seeds_of(bench: Bench, choosing: bool = False) -> list[Ingredient]:
    """Return the models of the pool `seeds` and cache their logits (choosing: also on hold-out)."""
    seeds = bench.ingredients("seeds")
    if len(seeds) < 2:
        raise Unavailable("the analysis needs two models that differ only in their seed, in analyse.pools.seeds")
    bench.evaluate(seeds, choosing)
    return seeds


def _rows(bench: Bench) -> Rows:
    seeds = seeds_of(bench)
    firsts = [seeds[:k] for k in range(1, len(seeds) + 1)]
    found = {
        "individual": list(map(bench.individual, seeds)),
        "soup": bench.measure(list(map(Point.uniform, firsts)), "figure G.4"),
        "ensemble": list(map(bench.ensemble, firsts)),
    }
    rows: Rows = []
    for k in range(1, len(seeds) + 1):
        for method, measures in found.items():
            rows.append({"k": k, "method": method, **bench.accuracies(measures[k - 1])})
    for method in ("soup", "ensemble"):
        pairs = [(found[method][-1], one) for one in found["individual"]]
        rows.append(comparison(f"{method} - individuals", bench, pairs))
    return rows


def _draw(rows: Rows) -> Figure:
    rows = having(rows, "method")
    keys = measured_on(rows)
    figure, panels = panels_of(len(keys), 3.1, 2.6)
    for panel, on in zip(panels, keys, strict=True):
        for method, (marker, colour, dash, label) in MARKS.items():
            here = select(rows, method=method)
            look = {"marker": marker, "color": colour, "linestyle": dash, "label": label}
            panel.plot(column(here, "k"), column(here, on, 100), markersize=4.5, **look)
        count_axis(panel, "number of models k")
        panel.set_ylabel(LABELS[on])
    legend(figure, panels[0])
    return figure


SEEDS = Analysis(**PAPER["figure_G4"], rows=_rows, draw=_draw)
