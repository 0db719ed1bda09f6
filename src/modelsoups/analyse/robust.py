"""WiSE-FT curves of individuals and of soups (Figure D.1), and all methods in one picture (Figures 5 and L.3)."""

from __future__ import annotations

from modelsoups import runs
from modelsoups.analyse.bench import OWN, Bench, Measures, Point, Unavailable
from modelsoups.analyse.curves import choose, need_holdout, renamed
from modelsoups.analyse.finding import Analysis, Rows, accuracies, compared, comparison
from modelsoups.core.types import EVERYTHING, Ingredient, Soup
from modelsoups.reporting.claims import FAILS, HOLDS, Verdict
from modelsoups.soup.stage import read_soup


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
    alphas = [a for a in bench.cfg.analyse.alphas if a > 0]
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
    for name in ("uniform", "greedy"):
        middle = min(alphas, key=lambda a: abs(a - 0.5))
        rows.append(
            {"pool": pool, **comparison(f"wise {name}", bench, [(found[name, middle], found[name, max(alphas)])])}
        )
    return rows


def _towards(start: Ingredient, ingredients: tuple[Ingredient, ...], weights: tuple[float, ...], alpha: float) -> Point:
    if alpha == 1:
        return Point(ingredients, weights)
    return Point((start, *ingredients), (1 - alpha, *(alpha * w for w in weights)))


def _verdicts(rows: Rows) -> list[Verdict]:
    found = []
    for pool in dict.fromkeys(r["pool"] for r in rows):
        here = [r for r in rows if r["pool"] == pool and "model" in r]
        singles = [r for r in here if r["model"] not in ("uniform", "greedy", "initialization")]
        for name in ("uniform", "greedy"):
            soup = next(r for r in here if r["model"] == name and r["alpha"] == 1)
            above = [r for r in singles if r["test"] >= soup["test"] and r["shifts"] >= soup["shifts"]]
            text = f"The {name} soup lies beyond the WiSE-FT curves of all individual models ({pool})"
            numbers = f"{len(above)} of {len(singles)} points are at least as good on both axes"
            found.append(Verdict(text, "Figure D.1", FAILS if above else HOLDS, numbers))
            part = [r for r in rows if r["pool"] == pool]
            text = f"WiSE-FT of the {name} soup (alpha 0.5) is better under shift than the soup ({pool})"
            found += compared(part, f"wise {name}", "shifts", text, "Figure D.1")
    return found


# ---- Figures 5 and L.3 ----


def _scatter(bench: Bench) -> Rows:
    """Every row of Table 3 as a point; from the soup stage where it has run, else chosen here."""
    need_holdout(bench)
    members = [m.ingredient for m in bench.pool(OWN)]
    bench.evaluate(members, choosing=True)
    rows: Rows = [
        {
            "method": "individual",
            "model": m.id,
            "lr": m.recipe.lr if m.recipe else None,
            **accuracies(bench, bench.individual(m)),
        }
        for m in members
    ]
    for row in ("best", "second_best", "uniform", "greedy", "ensemble", "greedy_ensemble", "learned", "learned_layers"):
        path = bench.cfg.run.soup(row)
        if path.exists():
            rows.append({"method": row, **accuracies(bench, _of_soup(bench, read_soup(path), members, row))})
        elif row not in ("learned", "learned_layers"):
            rows.append(
                {
                    "method": row,
                    **accuracies(bench, _of_soup(bench, choose(bench.cfg, tuple(members), row), members, row)),
                }
            )
    return rows


def _of_soup(bench: Bench, soup: Soup, members: list[Ingredient], row: str) -> Measures:
    by_id = {m.id: m for m in members}
    ingredients = tuple(by_id[name] for name in soup.ingredients)
    if soup.space == "logits":
        return bench.ensemble(ingredients, soup.coefficients[EVERYTHING])
    if set(soup.coefficients) == {EVERYTHING}:
        point = Point(ingredients, tuple(soup.coefficients[EVERYTHING]))
        return bench.measure([point], row)[0]
    mixed = Ingredient(row, "", runs.read_json(bench.cfg.run.soup(row))["sha256"], None)
    return bench.individual(mixed)


def _scatter_verdicts(rows: Rows) -> list[Verdict]:
    by = {r["method"]: r for r in rows if r["method"] != "individual"}
    found = []
    for on, where in (("test", "in distribution"), ("shifts", "under shift")):
        if by["greedy"][on] is not None:
            top = max(r[on] for r in rows if r["method"] == "individual")
            gain = by["greedy"][on] - top
            found.append(
                Verdict(
                    f"The greedy soup lies above every individual model {where}",
                    "Figures 1, 5 and L.3",
                    HOLDS if gain > 0 else FAILS,
                    f"{100 * gain:+.2f} points (no test: the best on the test set is chosen by it)",
                )
            )
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
