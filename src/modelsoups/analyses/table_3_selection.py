"""Greedy soups that add models in random orders (Table 3), and the optimism of hold-out gains.

Legend: N images of the hold-out, n of one half.
"""

import dataclasses
import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modelsoups import soup
from modelsoups.analyses.analysis import PAPER, Analysis
from modelsoups.analyses.bench import Bench, kept
from modelsoups.analyses.choosing import as_listed, choose, need_holdout, picked
from modelsoups.analyses.members import OWN
from modelsoups.analyses.points import Point, hashes
from modelsoups.analyses.rows import Rows, Table, having, interval
from modelsoups.report.numbers import percent
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.soup.methods import METHODS, Pool
from modelsoups.soup.selection_bias import Bias, part_of, selection_bias
from modelsoups.stats import intervals
from modelsoups.weights.state_dicts import mix

SPLITS = 4  # random halves of the hold-out
ORDERS = 5
GAINS = ("gain_holdout", "gain_test", "gain_shifts")
Members = tuple[Ingredient, ...]


def _rows(bench: Bench) -> Rows:
    need_holdout(bench)
    bench = bench.whole()
    members = tuple(bench.ingredients(OWN))
    bench.evaluate(members, choosing=True)
    counts = {"split": SPLITS, "order": ORDERS}
    tasks = [(members, kind, seed) for kind, count in counts.items() for seed in range(count)]
    made = bench.run_tasks(_select, tasks, "selection")
    splits, orders = made[:SPLITS], made[SPLITS:]
    rows: Rows = []
    for number, bias in enumerate(splits):
        row = {"split": number, "apparent": bias.apparent, "honest": bias.honest}
        rows.append({**row, "optimism": bias.optimism})
    named = [*enumerate(orders), ("best first", choose(bench, members, "greedy"))]
    for order, chosen in named:
        row = {"order": order, "models": len(chosen.ingredients)}
        rows.append({**row, **_worth(bench, members, chosen)})
    apparent_N, honest_N = np.mean([(bias.apparent_N, bias.honest_N) for bias in splits], axis=0)
    for name, gain_N in (("optimism", apparent_N - honest_N), ("honest", honest_N)):
        estimate = interval(intervals.mean_interval([gain_N]))
        rows.append({"comparison": name, "test": estimate})
    return rows


def _select(bench: Bench, task: tuple[Members, str, int]) -> Any:
    """Return the greedy soup of a random order of models, or its bias for a hold-out split."""
    members, kind, seed = task
    if kind == "order":
        return choose(bench, members, "greedy", order_seed=seed)
    holdout = bench.images.dataset(bench.holdout).sha256
    key = [hashes(members), holdout, seed, bench.strict]
    path = bench.kept_path(key, __name__, soup.__name__)
    found = kept(path, functools.partial(_bias, bench, members, seed))
    return Bias(np.array(found["apparent"]), np.array(found["honest"]))


def _bias(bench: Bench, members: Members, seed: int) -> dict[str, list[float]]:
    pool = bench.experiment.soups.pool(members)

    def logits_of(soup: Soup) -> Tensor:
        states = list(map(bench.weights, as_listed(soup, members)))
        return bench.experiment.logits.forward(bench.holdout, mix(states, soup.coefficients))

    def half(pool: Pool, index_n: Tensor) -> Pool:
        """Return the pool with only those hold-out images that have these indices."""
        of_N = torch.zeros(len(pool.labels_N), dtype=torch.bool).index_fill_(0, index_n, True)
        evaluate = functools.partial(bench.experiment.logits.forward, bench.holdout, of_N=of_N)
        return dataclasses.replace(part_of(pool, index_n), evaluate=evaluate)

    greedy = functools.partial(METHODS["greedy"], strict=bench.strict)
    bias = selection_bias(pool, greedy, logits_of, seed, half)
    return {"apparent": bias.apparent_N.tolist(), "honest": bias.honest_N.tolist()}


def _worth(bench: Bench, members: Members, soup: Soup) -> dict[str, Any]:
    """Return a soup's accuracies, and its gains over the model that is best on the hold-out."""
    best = picked(choose(bench, members, "best"), members)[0]
    names = [bench.holdout, *bench.tests]
    ours = bench.measure([Point.uniform(picked(soup, members))], "selection", names)[0]
    theirs = bench.individual(best, names)
    accuracies, others = bench.accuracies(ours), bench.accuracies(theirs)
    gains = [ours[name].accuracy - theirs[name].accuracy for name in (bench.holdout, bench.test)]
    shifts = None
    if accuracies["shifts"] is not None and others["shifts"] is not None:
        shifts = accuracies["shifts"] - others["shifts"]
    return {**accuracies, **dict(zip(GAINS, (*gains, shifts), strict=True))}


def _table(rows: Rows) -> Table:
    """Return a table: a line for each random order of models, then one for each hold-out split.

    The soup of a split is chosen on one half of the hold-out, and also measured on the other half.
    """
    gains = ["Gain where chosen", "Gain on the other half", "Gain on test", "Gain on shifts"]
    table = [["Greedy soup", "Models", "Test", "Shifts", *gains]]
    for r in having(rows, "order"):
        accuracies = [percent(r["test"]), percent(r["shifts"])]
        where, test, shifts = ["" if r[key] is None else percent(r[key], True) for key in GAINS]
        order = r["order"] if r["order"] == "best first" else f"random order {r['order']}"
        table.append([order, str(r.get("models", "")), *accuracies, where, "", test, shifts])
    for r in having(rows, "split"):
        halves = [percent(r[key], True) for key in ("apparent", "honest")]
        table.append([f"half of the hold-out, split {r['split']}", "", "", "", *halves, "", ""])
    return table


SELECTION = Analysis(**PAPER["selection"], rows=_rows, table=_table)
