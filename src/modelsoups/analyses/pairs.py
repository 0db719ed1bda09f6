"""Pairs of models: interpolation advantage against angle (Figure 3), soup against ensemble (Figure 4)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from typing import TypeVar

import numpy as np

from modelsoups.analyses.analysis import Analysis, Rows, accuracies, correlated, judged
from modelsoups.analyses.bench import OWN, Bench, Measures, Member, Unavailable, between, weights_of
from modelsoups.report.claims import Verdict
from modelsoups.stats import correlations
from modelsoups.weights import state_dicts

T = TypeVar("T")
KINDS = {"seed": {"seed"}, "learning rate": {"lr"}, "augmentation": {"aug", "mixup"}}
TOO_HIGH = 3.2  # times the first of analyse.rates, 3e-5 in the paper, which leaves 1e-4 and above out


def pairs_of(bench: Bench, pools: Sequence[str], limit: float) -> list[tuple[Member, Member, str]]:
    """Pairs with learning rates below the limit that differ in one thing alone, by its name; where there are none, all
    pairs ("several"). At most analyse.pairs, spread evenly over each kind."""
    found: dict[str, list[tuple[Member, Member, str]]] = {}
    members = [m for m in bench.pool(*pools) if m.ingredient.recipe is not None and m.lr < limit]
    for one, two in itertools.combinations(members, 2):
        if one.ingredient.sha256 != two.ingredient.sha256:
            kind = _kind(one, two)
            found.setdefault(kind, []).append((one, two, kind))
    single = {k: v for k, v in found.items() if k != "several"}
    groups = single or found
    most = max(1, bench.cfg.analyse.pairs // max(1, len(groups)))
    return [pair for group in groups.values() for pair in spread(group, most)]


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many, evenly spaced."""
    if len(items) <= most:
        return list(items)
    return [items[i] for i in sorted(set(np.linspace(0, len(items) - 1, most).round().astype(int)))]


def _kind(one: Member, two: Member) -> str:
    a, b = (asdict(m.ingredient.recipe) for m in (one, two))  # type: ignore[arg-type]
    differ = {key for key in a if a[key] != b[key]}
    return next((kind for kind, keys in KINDS.items() if differ and differ <= keys), "several")


# ---- Figure 3 ----


def _advantage(bench: Bench) -> Rows:
    pools = [p for p in (OWN, "standard_lp", "seeds", "theory") if p in bench.configs]
    pairs = pairs_of(bench, pools, TOO_HIGH * bench.cfg.analyse.rates[0])
    if not pairs:
        raise Unavailable("it needs two models with a recipe and a moderate learning rate")
    start = weights_of(bench.start(OWN))
    bench.evaluate([m.ingredient for one, two, _ in pairs for m in (one, two)])
    measured = bench.measure([between(a.ingredient, b.ingredient, 0.5) for a, b, _ in pairs], "figure 3")
    rows: Rows = []
    for (one, two, kind), middle in zip(pairs, measured, strict=True):
        ends = [bench.individual(m.ingredient) for m in (one, two)]
        angle = state_dicts.angle(start, weights_of(one.ingredient), weights_of(two.ingredient))
        gain = _mean(bench, middle) - (_mean(bench, ends[0]) + _mean(bench, ends[1])) / 2
        rows.append(
            {"a": one.name, "b": two.name, "kind": kind, "angle": angle, "advantage": gain, "lr": max(one.lr, two.lr)}
        )
    return rows


def _mean(bench: Bench, measures: Measures) -> float:
    """Over the test set and the shifts, as in Figure 3."""
    return float(np.mean([measures[name].accuracy for name in bench.tests]))


def _advantage_verdicts(rows: Rows) -> list[Verdict]:
    models = [(r["a"], r["b"]) for r in rows]
    gains = [r["advantage"] for r in rows]
    average = correlations.mean(gains, models)
    text = "Averaging two models is better than the average of the two"
    found = [judged(text, "section 3.2", average.value, average.low, average.high)]
    angles = [row["angle"] for row in rows]
    more = [row["kind"] != "seed" for row in rows]
    if any(more) and not all(more):
        d = correlations.difference(angles, more, models)
        text = "Pairs of other hyperparameters have a larger angle than pairs of other seeds (degrees)"
        found.append(judged(text, "Figure 3", d.value, d.low, d.high, unit=""))
    return found + correlated("The interpolation advantage grows with the angle", "Figure 3", angles, gains, models)


# ---- Figure 4 ----


def _soup_and_ensemble(bench: Bench) -> Rows:
    members = [m for m in bench.pool(OWN) if m.ingredient.recipe is not None]
    pairs = spread(list(itertools.combinations(members, 2)), bench.cfg.analyse.pairs)
    if not pairs:
        raise Unavailable("it needs two models with a recipe")
    bench.evaluate([m.ingredient for m in members])
    soups = bench.measure([between(a.ingredient, b.ingredient, 0.5) for a, b in pairs], "figure 4")
    rows: Rows = []
    for (one, two), soup in zip(pairs, soups, strict=True):
        ensemble = bench.ensemble([one.ingredient, two.ingredient])
        rows.append(
            {
                "a": one.name,
                "b": two.name,
                "lr": max(one.lr, two.lr),
                "soup": accuracies(bench, soup),
                "ensemble": accuracies(bench, ensemble),
            }
        )
    return rows


def _soup_and_ensemble_verdicts(rows: Rows) -> list[Verdict]:
    models = [(r["a"], r["b"]) for r in rows]
    found = []
    for on, sign, text in (
        ("test", 1, "Two-model ensembles are better than two-model soups in distribution"),
        ("shifts", -1, "Two-model soups are better than two-model ensembles under shift"),
    ):
        if rows[0]["soup"][on] is None:
            continue
        soup, ensemble = ([r[kind][on] for r in rows] for kind in ("soup", "ensemble"))
        found += correlated(f"Soup and ensemble accuracy go together ({on})", "Figure 4", soup, ensemble, models)
        d = correlations.mean([sign * (e - s) for s, e in zip(soup, ensemble, strict=True)], models)
        found.append(judged(text, "Figure 4", d.value, d.low, d.high))
    return found


ADVANTAGE = Analysis(
    "figure_3",
    "Figure 3. Interpolation advantage and angle",
    "section 3.2",
    "The advantage of averaging two solutions is correlated with the angle between them; varying seed, learning rate "
    "or augmentation makes angles larger.",
    _advantage,
    _advantage_verdicts,
)
SOUP_AND_ENSEMBLE = Analysis(
    "figure_4",
    "Figure 4. Soup and ensemble of pairs",
    "section 3.2",
    "Ensemble and soup accuracy of pairs are correlated; ensembles are slightly better on ImageNet, soups under shift.",
    _soup_and_ensemble,
    _soup_and_ensemble_verdicts,
)
