"""Accuracy against the number of models, over random orders (Figures B.1 and H.1 to H.4)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from modelsoups.analyses.analysis import Analysis, Rows, accuracies, compared, comparison
from modelsoups.analyses.bench import OWN, Bench, Measures, Point, Unavailable, kept_path, weights_of
from modelsoups.config.schema import Config
from modelsoups.disk import storage
from modelsoups.experiment.logits import forward, logits_of
from modelsoups.experiment.sets import evaluated, open_set
from modelsoups.experiment.soups import CURVE
from modelsoups.report.claims import Verdict
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.soup.greedy_rule import random_order
from modelsoups.soup.methods import METHODS, Pool
from modelsoups.workers.processes import run_tasks, worker_count

CHOSEN = ("best", "greedy", "greedy_ensemble")  # by the hold-out; uniform and ensemble take all
NEAR = 0.8  # of all models: more of them, and a point tells what all of them tell, at the highest cost
POOLS = {
    "figure_B1": ("Figure B.1", (OWN,), "the random search"),
    "figure_H1": ("Figure H.1", ("standard_lp",), "the standard grid, LP initialization"),
    "figure_H2": ("Figure H.2", ("standard_lp", "extreme_lp"), "the extreme grid, LP initialization"),
    "figure_H3": ("Figure H.3", ("standard_zs",), "the standard grid, zero-shot initialization"),
    "figure_H4": ("Figure H.4", ("standard_zs", "extreme_zs"), "the extreme grid, zero-shot initialization"),
}


def holdout_pool(cfg: Config, ingredients: tuple[Ingredient, ...]) -> Pool:
    """These models as a method sees them."""
    logits = [logits_of(cfg, cfg.data.holdout, i.sha256, weights_of(i)) for i in ingredients]
    return Pool(
        ingredients=ingredients,
        logits=tuple(x.logits_NC for x in logits),
        labels_N=logits[0].labels_N,
        state=lambda i: weights_of(ingredients[i]),
        evaluate=lambda state: forward(cfg, cfg.data.holdout, state),
    )


def choose(cfg: Config, ingredients: tuple[Ingredient, ...], method: str, **options: Any) -> Soup:
    """What a method chooses of these models, kept in a file."""
    hashes = [[i.id, i.sha256] for i in ingredients]
    holdout = open_set(cfg.data.dir, cfg.data.holdout).sha256
    strict = {"strict": cfg.protocol == "released"} if method.startswith("greedy") else {}
    path = kept_path(cfg, [method, hashes, holdout, options, strict], "soup/methods", "soup/greedy_rule")
    if not path.exists():
        soup = METHODS[method](holdout_pool(cfg, ingredients), **options, **strict)
        storage.write_json(path, soup.to_json())
    return Soup.from_json(storage.read_json(path))


def need_holdout(bench: Bench) -> None:
    if bench.cfg.data.holdout not in evaluated(bench.cfg):
        raise Unavailable(f"it chooses on the hold-out {bench.cfg.data.holdout}, which is not prepared")


def _choose_all(cfg: Config, task: tuple[Ingredient, ...]) -> dict[str, Soup]:
    return {method: choose(cfg, task, method) for method in CHOSEN}


def renamed(ingredients: list[Ingredient]) -> list[Ingredient]:
    """Ids that tell models of several pools apart."""
    return [Ingredient(f"{n:03d}", i.path, i.sha256, i.recipe) for n, i in enumerate(ingredients)]


def _rows(bench: Bench, pools: tuple[str, ...]) -> Rows:
    need_holdout(bench)
    members = [m.ingredient for m in bench.pool(*pools)]
    if len(pools) > 1:  # the extreme grid: the paper puts the initialization in (J.2.1)
        members.append(bench.start(pools[0]))
    members = renamed(members)
    bench.evaluate(members, choosing=True)
    tasks = {}
    counts = [*(k for k in CURVE if k <= NEAR * len(members)), len(members)]
    for order in range(bench.cfg.analyse.orders):
        shuffled = [members[i] for i in random_order([m.id for m in members], order)]
        for k in counts:
            tasks[order, k] = tuple(sorted(shuffled[:k], key=lambda m: m.id))
    unique = list(dict.fromkeys(tasks.values()))
    workers = worker_count(bench.cfg.finetune.parallel)
    label = f"analyse: choosing, {', '.join(pools)}"
    chosen = dict(run_tasks(functools.partial(_choose_all, bench.cfg), unique, workers, label))
    points = {key: _points(task, chosen[task]) for key, task in tasks.items()}
    flat = [p for of in points.values() for p in of.values()]
    kept = {str(p.key()): m for p, m in zip(flat, bench.measure(flat, f"measuring, {', '.join(pools)}"), strict=True)}
    return _table(bench, tasks, chosen, lambda key, method: kept[str(points[key][method].key())])


def _points(task: tuple[Ingredient, ...], chosen: dict[str, Soup]) -> dict[str, Point]:
    by_id = {i.id: i for i in task}
    greedy = tuple(by_id[name] for name in chosen["greedy"].ingredients)
    return {
        "uniform": Point(task, (1 / len(task),) * len(task)),
        "greedy": Point(greedy, (1 / len(greedy),) * len(greedy)),
    }


Tasks = dict[tuple[int, int], tuple[Ingredient, ...]]


def _table(
    bench: Bench, tasks: Tasks, chosen: dict[Any, dict[str, Soup]], soup: Callable[[tuple[int, int], str], Measures]
) -> Rows:
    rows: Rows = []
    found: dict[tuple[int, int], dict[str, Measures]] = {}
    for key, task in tasks.items():
        picked = {m: [i for i in task if i.id in chosen[task][m].ingredients] for m in CHOSEN}
        found[key] = {
            "best": bench.individual(picked["best"][0]),
            "uniform": soup(key, "uniform"),
            "greedy": soup(key, "greedy"),
            "ensemble": bench.ensemble(task),
            "greedy_ensemble": bench.ensemble(picked["greedy_ensemble"]),
        }
        for method, measures in found[key].items():
            of = len(picked.get(method, task))
            rows.append({"order": key[0], "k": key[1], "method": method, "of": of, **accuracies(bench, measures)})
    several = [f for (_, k), f in found.items() if k > 1]
    for a, b in (("greedy", "best"), ("greedy", "uniform"), ("ensemble", "greedy"), ("greedy", "ensemble")):
        rows.append(comparison(f"{a} - {b}", bench, [(f[a], f[b]) for f in several]))
    return rows


def _verdicts(source: str, rows: Rows) -> list[Verdict]:
    claims = (
        ("greedy - best", "test", "The greedy soup beats the best individual model in distribution"),
        ("greedy - best", "shifts", "The greedy soup beats the best individual model under shift"),
        ("greedy - uniform", "test", "The greedy soup beats the uniform soup in distribution"),
        ("ensemble - greedy", "test", "The ensemble beats the greedy soup in distribution"),
        ("greedy - ensemble", "shifts", "The greedy soup beats the ensemble under shift"),
    )
    mean = " (mean over numbers of models and orders)"
    return [v for name, on, text in claims for v in compared(rows, name, on, text + mean, source)]


CURVES = tuple(
    Analysis(
        name,
        f"{title}. Accuracy against the number of models: {what}",
        "appendix B" if name == "figure_B1" else "appendix H",
        "For essentially any number of models the greedy soup outperforms the best single model on "
        "ImageNet and under shift; the ensemble is better than the soup on ImageNet and worse under shift.",
        functools.partial(_rows, pools=pools),
        functools.partial(_verdicts, title),
    )
    for name, (title, pools, what) in POOLS.items()
)
