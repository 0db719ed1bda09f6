"""WiSE-FT curves of individuals and of soups (Figure D.1), and all methods in one picture (Figures 5 and L.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelsoups.analyses.analysis import Analysis, Rows, accuracies, compared, comparison
from modelsoups.analyses.bench import OWN, Bench, Measures, Point, Unavailable
from modelsoups.analyses.curves import choose, need_holdout, renamed
from modelsoups.disk import storage
from modelsoups.experiment.soups import read_soup
from modelsoups.report.claims import Verdict
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.stats import intervals
from modelsoups.weights.state_dicts import EVERYTHING


def _curves(bench: Bench) -> Rows:
    need_holdout(bench)
    if not bench.all_shifts:
        raise Unavailable("it needs all of the distribution shifts")
    rows: Rows = []
    for pool in (OWN, "standard_zs"):
        if pool in bench.configs:
            rows += _of_pool(bench, pool)
    return rows


def _of_pool(bench: Bench, pool: str) -> Rows:
    start = bench.start(pool)
    members = renamed([m.ingredient for m in bench.pool(pool)])
    bench.evaluate([start, *members], choosing=True)
    ends: dict[str, tuple[tuple[Ingredient, ...], tuple[float, ...]]] = {m.id: ((m,), (1.0,)) for m in members}
    ends["uniform"] = (tuple(members), (1 / len(members),) * len(members))
    soup = choose(bench.cfg, tuple(members), "greedy")
    ends["greedy"] = (tuple(m for m in members if m.id in soup.ingredients), tuple(soup.coefficients[EVERYTHING]))
    alphas = sorted({1.0, *(bench.cfg.analyse.wise_ft or bench.cfg.analyse.alphas)} - {0.0})
    keys = [(name, alpha) for name in ends for alpha in alphas]
    points = [_towards(start, *ends[name], alpha) for name, alpha in keys]
    found = dict(zip(keys, bench.measure(points, f"WiSE-FT, {pool}"), strict=True))
    rates = {m.id: m.recipe.lr if m.recipe else None for m in members}
    rows: Rows = [
        {"pool": pool, "model": name, "alpha": alpha, "lr": rates.get(name), **accuracies(bench, m)}
        for (name, alpha), m in found.items()
    ]
    rows.append(
        {
            "pool": pool,
            "model": "initialization",
            "alpha": 0.0,
            "lr": None,
            **accuracies(bench, bench.individual(start)),
        }
    )
    singles = [m for (name, _), m in found.items() if name in rates]
    for name in ("uniform", "greedy"):
        rows.append(
            {"pool": pool, "comparison": f"beyond {name}", "test": _beyond(bench, found[name, max(alphas)], singles)}
        )
        middle = min(alphas, key=lambda a: abs(a - 0.5))
        rows.append(
            {"pool": pool, **comparison(f"wise {name}", bench, [(found[name, middle], found[name, max(alphas)])])}
        )
    return rows


def _beyond(bench: Bench, soup: Measures, others: list[Measures]) -> dict[str, float]:
    """By how much the soup is ahead of every other on at least one axis, test or mean of shifts; below zero where one

    of them is ahead on both. Interval over images; a minimum over many points is the lower the noisier they are, so
    that errs against the soup.
    """

    def ahead(accuracies_M: Sequence[np.ndarray]) -> float:
        axes = (accuracies_M[0], np.mean(accuracies_M[1:], axis=0))
        return float(np.min(np.max([axis[0] - axis[1:] for axis in axes], axis=0)))

    sets = [np.array([m[n].correct_N for m in (soup, *others)]) for n in bench.tests]
    return dict(zip(("value", "low", "high"), intervals.bootstrap(sets, ahead), strict=True))


def _towards(start: Ingredient, ingredients: tuple[Ingredient, ...], weights: tuple[float, ...], alpha: float) -> Point:
    if alpha == 1:
        return Point(ingredients, weights)
    return Point((start, *ingredients), (1 - alpha, *(alpha * w for w in weights)))


def _verdicts(rows: Rows) -> list[Verdict]:
    found = []
    for pool in dict.fromkeys(r["pool"] for r in rows):
        here = [r for r in rows if r["pool"] == pool and "model" in r]
        singles = [r for r in here if r["model"] not in ("uniform", "greedy", "initialization")]
        part = [r for r in rows if r["pool"] == pool]
        for name in ("uniform", "greedy"):
            soup = next(r for r in here if r["model"] == name and r["alpha"] == 1)
            above = sum(r["test"] >= soup["test"] and r["shifts"] >= soup["shifts"] for r in singles)
            text = (
                f"The {name} soup lies beyond the WiSE-FT curves of all individual models ({pool}; {above} of "
                f"{len(singles)} points are as good on both axes; distance to the nearest)"
            )
            found += compared(part, f"beyond {name}", "test", text, "Figure D.1")
            text = f"WiSE-FT of the {name} soup (alpha 0.5) is better under shift than the soup ({pool})"
            found += compared(part, f"wise {name}", "shifts", text, "Figure D.1")
    return found


# ---- Figures 5 and L.3 ----


ALL = ("best", "second_best", "uniform", "greedy", "ensemble", "greedy_ensemble", "learned", "learned_layers")


def _scatter(bench: Bench) -> Rows:
    """Every row of Table 3 as a point; from the soup stage where it has run, else chosen here."""
    need_holdout(bench)
    bench = bench.whole()
    members = [m.ingredient for m in bench.pool(OWN)]
    bench.evaluate(members, choosing=True)
    each = [bench.individual(m) for m in members]
    rows: Rows = [
        {"method": "individual", "model": m.id, "lr": m.recipe.lr if m.recipe else None, **accuracies(bench, measures)}
        for m, measures in zip(members, each, strict=True)
    ]
    for row in ALL:
        path = bench.cfg.run.soup(row)
        if not path.exists() and row in ("learned", "learned_layers"):
            continue
        soup = read_soup(path) if path.exists() else choose(bench.cfg, tuple(members), row)
        measures = _of_soup(bench, soup, members, row)
        rows.append({"method": row, **accuracies(bench, measures)})
        if row == "greedy":
            rows.append({"comparison": "greedy - best of all", **_above_all(bench, measures, each)})
    return rows


def _of_soup(bench: Bench, soup: Soup, members: list[Ingredient], row: str) -> Measures:
    by_id = {m.id: m for m in members}
    ingredients = tuple(by_id[name] for name in soup.ingredients)
    if soup.space == "logits":
        return bench.ensemble(ingredients, soup.coefficients[EVERYTHING])
    if set(soup.coefficients) == {EVERYTHING}:
        point = Point(ingredients, tuple(soup.coefficients[EVERYTHING]))
        return bench.measure([point], row)[0]
    mixed = Ingredient(row, "", storage.read_json(bench.cfg.run.soup(row))["sha256"], None)
    return bench.individual(mixed)


def _scatter_verdicts(rows: Rows) -> list[Verdict]:
    found = []
    for on, where in (("test", "in distribution"), ("shifts", "under shift")):
        text = f"The greedy soup lies above every individual model {where}, also that which is best there"
        found += compared(rows, "greedy - best of all", on, text, "Figures 1, 5 and L.3")
    return found


def _above_all(bench: Bench, soup: Measures, others: list[Measures]) -> dict[str, dict[str, float]]:
    """The soup less the best of the others by the very images, on test and on the mean of the shifts."""
    found = {}
    for on, names in (("test", [bench.test]), ("shifts", bench.shifts if bench.all_shifts else [])):
        if names:
            sets = [np.array([m[n].correct_N for m in (soup, *others)]) for n in names]
            interval = intervals.bootstrap(sets, lambda a_M: float((m := np.mean(a_M, axis=0))[0] - m[1:].max()))
            found[on] = dict(zip(("value", "low", "high"), interval, strict=True))
    return found


ROBUST = Analysis(
    "figure_D1",
    "Figure D.1. WiSE-FT curves",
    "appendix D",
    "The soups lie beyond the WiSE-FT curves of any individual model, and WiSE-FT of a soup improves it under shift.",
    _curves,
    _verdicts,
)
SCATTER = Analysis(
    "figure_L3",
    "Figures 5 and L.3. All methods",
    "section 3.3, appendix L",
    "Soups lie above and to the right of every individual model; ensembles are further to the right, at many times the "
    "cost.",
    _scatter,
    _scatter_verdicts,
)
