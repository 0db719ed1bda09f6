"""One-dimensional grids: the average of the endpoints against the best model between them (Figure F.1)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from modelsoups.analyses.analysis import Analysis, Rows, counted
from modelsoups.analyses.bench import Bench, Member, Unavailable, between
from modelsoups.report.claims import Verdict

OPTIMIZERS = ("sgd", "rmsprop", "adam", "adamw")
AUGMENTATIONS = ("minimal", "medium", "strong")


def _grids(bench: Bench) -> Mapping[str, list[tuple[str, Member]]]:
    """Grid -> its models in order, with what to call each; a grid of fewer than two models is left out."""
    rate = bench.cfg.analyse.rates[0]
    rates = sorted({m.lr for name in ("standard_lp", "extreme_lp") if name in bench.configs for m in bench.pool(name)})
    wanted: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "optimizer": [(o, {"lr": None if o == "sgd" else rate, "aug": "minimal", "optimizer": o}) for o in OPTIMIZERS],
        "augmentation": [(a, {"lr": rate, "aug": a}) for a in AUGMENTATIONS],
        "learning rate": [
            (f"{lr:.1e}".replace("e-0", "e-").replace(".0e", "e"), {"lr": lr, "aug": "medium"}) for lr in rates
        ],
    }
    found = {}
    for grid, specs in wanted.items():
        models = [(name, m) for name, spec in specs if (m := _found(bench, spec)) is not None]
        if len(models) > 1:
            found[grid] = models
    if not found:
        raise Unavailable("no pool has two models that differ in optimizer, augmentation or learning rate alone")
    return found


def _found(bench: Bench, spec: dict[str, Any]) -> Member | None:
    try:
        return bench.find("lp", **{k: v for k, v in spec.items() if v is not None})
    except Unavailable:
        return None


def _rows(bench: Bench) -> Rows:
    grids = _grids(bench)
    bench.evaluate([m.ingredient for models in grids.values() for _, m in models])
    keys, points = [], []
    for grid, models in grids.items():
        for i, j in itertools.combinations(range(len(models)), 2):
            keys.append((grid, i, j))
            points.append(between(models[i][1].ingredient, models[j][1].ingredient, 0.5))
    rows: Rows = []
    for (grid, i, j), soup in zip(keys, bench.measure(points, "figure F.1"), strict=True):
        between_ = grids[grid][i : j + 1]
        best = max(bench.individual(m.ingredient)[bench.test].accuracy for _, m in between_)
        rows.append(
            {
                "grid": grid,
                "a": grids[grid][i][0],
                "b": grids[grid][j][0],
                "average": soup[bench.test].accuracy,
                "best": best,
                "gain": soup[bench.test].accuracy - best,
            }
        )
    return rows


def _verdicts(rows: Rows) -> list[Verdict]:
    text = "The average of the endpoints is better than the best individual model between them, for most grids"
    return [
        counted(
            f"{text} ({grid})",
            "Figure F.1",
            sum(r["gain"] > 0 for r in rows if r["grid"] == grid),
            sum(r["grid"] == grid for r in rows),
        )
        for grid in dict.fromkeys(r["grid"] for r in rows)
    ]


GRIDS = Analysis(
    "figure_F1",
    "Figure F.1. One-dimensional grids",
    "appendix F",
    "The average of the endpoints of a grid often outperforms the best individual model in it, except where one "
    "was fine-tuned with too large a learning rate.",
    _rows,
    _verdicts,
)
