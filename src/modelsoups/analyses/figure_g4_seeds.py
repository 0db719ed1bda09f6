"""Soups and ensembles of the first k models that differ only in their seed (Figure G.4).

The figure has a line of panels for the run's own model and, if analyse.pools has the pool seeds_labels,
one for a model that was pre-trained on labels (the paper's ViT-B/32 of ImageNet-22k).
"""

from collections.abc import Sequence

from matplotlib.figure import Figure

from modelsoups.analyses.analysis import PAPER, Analysis, comparison
from modelsoups.analyses.bench import Bench
from modelsoups.analyses.members import Unavailable
from modelsoups.analyses.points import Point
from modelsoups.analyses.rows import Rows, column, having, measured_on, select
from modelsoups.report.plotting import BLUE, GREEN, LABELS, ORANGE, count_axis, legend, panels_of
from modelsoups.soup.coefficients import Ingredient

POOL, LABELLED = "seeds", "seeds_labels"
TITLES = {POOL: "", LABELLED: "pre-trained on labels"}
MARKS = {
    "individual": ("D", GREEN, "none", "individual with seed k"),
    "soup": ("o", BLUE, "-", "soup of seeds 1 to k"),
    "ensemble": ("s", ORANGE, "-", "ensemble of seeds 1 to k"),
}


def seeds_of(bench: Bench, choosing: bool = False) -> list[Ingredient]:
    """Return the models of the pool `seeds` and cache their logits (choosing: also on hold-out)."""
    seeds = _two_or_more(bench, POOL)
    bench.evaluate(seeds, choosing)
    return seeds


def _two_or_more(bench: Bench, pool: str) -> list[Ingredient]:
    seeds = bench.ingredients(pool)
    if len(seeds) < 2:
        raise Unavailable(f"the analysis needs two models that differ only in their seed, in analyse.pools.{pool}")
    return seeds


def _rows(bench: Bench) -> Rows:
    rows: Rows = []
    for pool in TITLES:
        if pool == POOL or pool in bench.runs:
            seeds = _two_or_more(bench, pool)
            rows += _rows_of(bench.for_pool(pool), pool, seeds)
    return rows


def _rows_of(bench: Bench, pool: str, seeds: Sequence[Ingredient]) -> Rows:
    """Return the accuracies of the first k seeds of a pool, and the gains over the mean of its models."""
    bench.evaluate(seeds)
    firsts = [seeds[:k] for k in range(1, len(seeds) + 1)]
    found = {
        "individual": list(map(bench.individual, seeds)),
        "soup": bench.measure(list(map(Point.uniform, firsts)), "figure G.4"),
        "ensemble": list(map(bench.ensemble, firsts)),
    }
    rows: Rows = []
    for k in range(1, len(seeds) + 1):
        for method, measures in found.items():
            rows.append({"pool": pool, "k": k, "method": method, **bench.accuracies(measures[k - 1])})
    for method in ("soup", "ensemble"):
        pairs = [(found[method][-1], one) for one in found["individual"]]
        name = f"{method} - individuals"
        more: dict[str, str] = {}
        if pool == LABELLED:  # the claims of analyses.jsonl are those of the run's own model
            name = f"{name}, {TITLES[pool]}"
            more = {"said": f"The {method} of all seeds beats the mean of its models ({TITLES[pool]})"}
        rows.append(comparison(name, bench, pairs, **more))
    return rows


def _draw(rows: Rows) -> Figure:
    rows = having(rows, "method")
    keys, pools = measured_on(rows), [pool for pool in TITLES if select(rows, pool=pool)]
    figure, panels = panels_of(len(keys), 3.1, 2.6, len(pools))
    places = [(pool, on) for pool in pools for on in keys]
    for panel, (pool, on) in zip(panels, places, strict=True):
        for method, (marker, colour, dash, label) in MARKS.items():
            here = select(rows, pool=pool, method=method)
            look = {"marker": marker, "color": colour, "linestyle": dash, "label": label}
            panel.plot(column(here, "k"), column(here, on, 100), markersize=4.5, **look)
        panel.set_title(TITLES[pool], fontsize=8)
        count_axis(panel, "number of models k")
        panel.set_ylabel(LABELS[on])
    legend(figure, panels[0])
    return figure


SEEDS = Analysis(**PAPER["figure_G4"], rows=_rows, draw=_draw)
