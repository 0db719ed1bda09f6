"""Soups of models that were fine-tuned on different data sets, on a further one, zero-shot (Figure E.1, J.3).

The run's own data set is the one to evaluate on; each pool of analyse.pools with other data is one
data set to fine-tune on, with a frozen zero-shot head (recipe.trained=encoder). A soup is the mean
of the zero-shot model and one model of each of some pools, with the zero-shot head of the run's data
set. The models are added in every order, so that every subset of them is one soup; of more than
MOST_FOR_ALL models, in analyse.orders random orders.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from modelsoups.analyses.analysis import PAPER, Analysis, Verdicts, judged
from modelsoups.analyses.bench import Bench
from modelsoups.analyses.members import OWN, Unavailable
from modelsoups.analyses.points import Point
from modelsoups.analyses.rows import Rows, column, having, interval
from modelsoups.report.plotting import BLUE, INK, LABELS, count_axis, panels_of
from modelsoups.soup.coefficients import Ingredient
from modelsoups.soup.methods.greedy import random_order
from modelsoups.stats import intervals

MOST_FOR_ALL = 6  # models: 720 orders, but only 64 soups
FADED = 0.06  # opacity of the lines of hundreds of orders
Order = tuple[str, ...]  # names of data sets


class Source(NamedTuple):
    """A pool with a data set of its own: its model, and how many of the run's classes it also has."""

    model: Ingredient
    shared: int


def sources_of(bench: Bench) -> dict[str, Source]:
    """Return the pools with other data than the run; ValueError for one that cannot be in these soups."""
    own = bench.experiment
    found: dict[str, Source] = {}
    for name, run in bench.runs.items():
        if name == OWN or run.config.data == own.config.data:
            continue
        (model, *more), asked = bench.ingredients(name), f"analyse.pools.{name}"
        if run.config.model != own.config.model:
            raise ValueError(
                f"{asked}: its model is not that of the run, so they cannot be averaged; set the same model"
            )
        if more:
            raise ValueError(f"{asked}: it has {1 + len(more)} models, but each data set adds one; set sweep.count=1")
        if run.config.heads.init != "zeroshot" or (model.recipe and model.recipe.trained != "encoder"):
            way_out = "set heads.init=zeroshot and recipe.trained=encoder, as in experiment=cross-datasets"
            raise ValueError(f"{asked}: its head is trained, so its encoder does not fit another head; {way_out}")
        run.check_head()
        found[name] = Source(model, len(set(run.sets.train.classes) & set(own.sets.train.classes)))
    if len(found) < 2:
        raise Unavailable("the analysis needs models of two other data sets, as analyse.pools of cross-datasets has")
    return found


def orders_of(names: Sequence[str], count: int) -> list[Order]:
    """Return all orders of the names or, of more than MOST_FOR_ALL names, `count` random ones."""
    if len(names) <= MOST_FOR_ALL:
        return list(permutations(names))
    return [tuple(names[i] for i in random_order(list(names), seed)) for seed in range(count)]


def _rows(bench: Bench) -> Rows:
    sources, own = sources_of(bench), bench.experiment
    if own.config.heads.init != "zeroshot":
        raise Unavailable("the analysis needs the zero-shot model: heads.init=zeroshot")
    own.check_head()
    start = bench.start(OWN)
    orders = orders_of(list(sources), bench.settings.orders)
    subsets = list(dict.fromkeys(frozenset(order[:k]) for order in orders for k in range(len(order) + 1)))
    points = []
    for subset in subsets:  # in one order, so that equal subsets are one point
        models = [source.model for name, source in sources.items() if name in subset]
        points.append(Point.uniform([start, *models], start))
    measured = bench.measure(points, "figure E.1", [bench.test])
    correct = {s: found[bench.test].correct_N.astype(float) for s, found in zip(subsets, measured, strict=True)}
    none, every = frozenset[str](), frozenset(sources)
    rows: Rows = [{"order": list(order), "test": _curve(order, correct)} for order in orders]
    for name, (_, shared) in sources.items():
        gain = interval(intervals.mean_interval([_mean_change(name, orders, correct)]))
        alone = float((correct[frozenset([name])] - correct[none]).mean()) if frozenset([name]) in correct else None
        rows.append({"added": name, "change": gain, "alone": alone, "shared classes": shared})
    gain_N = correct[every] - correct[none]
    rows.append({"all": len(sources), "zero-shot": float(correct[none].mean()), "soup": float(correct[every].mean())})
    rows[-1]["gain"] = interval(intervals.mean_interval([gain_N]))
    rows.append({"between": _extremes(list(sources), orders, correct)})
    return rows


def _curve(order: Order, correct: dict[frozenset[str], np.ndarray]) -> list[float]:
    """Return the accuracy after each addition, the zero-shot model's first."""
    return [float(correct[frozenset(order[:k])].mean()) for k in range(len(order) + 1)]


def _mean_change(name: str, orders: Sequence[Order], correct: dict[frozenset[str], np.ndarray]) -> np.ndarray:
    """Return the change of correctness per image when `name` is added, averaged over the orders."""
    before = Counter(frozenset(order[: order.index(name)]) for order in orders)
    changes = [n * (correct[subset | {name}] - correct[subset]) for subset, n in before.items()]
    return np.sum(changes, axis=0) / len(orders)


def _extremes(
    names: list[str], orders: Sequence[Order], correct: dict[frozenset[str], np.ndarray]
) -> dict[str, object]:
    """Return which data set adds most and which least on every second image, and the difference on the others."""
    changes = {name: _mean_change(name, orders, correct) for name in names}
    on_even = {name: float(changes[name][::2].mean()) for name in names}
    most, least = max(names, key=on_even.__getitem__), min(names, key=on_even.__getitem__)
    difference_n = changes[most][1::2] - changes[least][1::2]
    return {"most": most, "least": least, "difference": interval(intervals.mean_interval([difference_n]))}


def _judge(rows: Rows) -> Verdicts:
    (total,), (extremes,) = having(rows, "gain"), column(having(rows, "between"), "between")
    gained = f"The soup of the zero-shot model and the models of {total['all']} data sets beats the zero-shot model"
    which = "It matters which models are added (mean change, best data set minus worst, on images that"
    which += f" were not used to choose them: {extremes['most']} minus {extremes['least']})"
    return [
        judged(gained, "appendix E, Figure E.1", total["gain"]),
        judged(which, "appendix E, Figure E.1", extremes["difference"]),
    ]


def _draw(rows: Rows) -> Figure:
    figure, (left, right) = panels_of(2, 3.4, 2.7)
    _draw_orders(left, having(rows, "order"))
    _draw_changes(right, having(rows, "added"))
    return figure


def _draw_orders(panel: Axes, rows: Rows) -> None:
    """Draw the accuracy after each addition: each order as a faded line, and their mean."""
    curves_RK = 100 * np.array(column(rows, "test"))
    for curve in np.unique(curves_RK, axis=0):
        panel.plot(curve, color=BLUE, alpha=FADED if len(curves_RK) > 24 else 0.25, linewidth=0.8)
    panel.plot(curves_RK.mean(axis=0), color=BLUE, marker="o", markersize=4.5, label="mean over the orders")
    panel.axhline(curves_RK[0, 0], color=INK, linewidth=0.8, linestyle="--")
    count_axis(panel, "models added to the zero-shot model")
    panel.set_ylabel(LABELS["test"])
    panel.legend(fontsize=7, loc="best")


def _draw_changes(panel: Axes, rows: Rows) -> None:
    """Draw the mean change of accuracy when the model of each data set is added, with 95% intervals."""
    rows = sorted(rows, key=lambda row: row["change"]["value"])
    names, places = column(rows, "added"), range(len(rows))
    value, low, high = (100 * np.array([row["change"][end] for row in rows]) for end in ("value", "low", "high"))
    panel.barh(places, value, color=BLUE, alpha=0.75)
    panel.errorbar(value, places, xerr=[value - low, high - value], fmt="none", ecolor=INK, elinewidth=0.8)
    panel.axvline(0, color=INK, linewidth=0.8)
    panel.set_yticks(places, names)
    panel.set_xlabel("mean change when added (points)")


ACROSS_SETS = Analysis(**PAPER["figure_E1"], rows=_rows, judge=_judge, draw=_draw)
