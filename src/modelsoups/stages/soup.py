"""Coefficients by every method of Table 3, chosen on the hold-out alone, then evaluated: `modelsoups soup`.

Writes runs/<name>/soups/<row>.json, a soup each, and the mixed checkpoints of soup.write as .safetensors. No test set
is touched before the last coefficient has been chosen: `_choose` sees a Pool, which holds none; `_measure` comes after.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelsoups.config.schema import Config
from modelsoups.disk import manifests, storage
from modelsoups.experiment.ingredients import initial_models, load_pool
from modelsoups.experiment.logits import decode_once, logits_of
from modelsoups.experiment.sets import test_names
from modelsoups.experiment.soups import _chosen, _extras, curve_points, mixed, pool, read_soup, soup_inputs, write_soup
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.soup.methods import METHODS
from modelsoups.weights import state_dicts
from modelsoups.workers.processes import run_tasks, worker_count


@dataclass(frozen=True)
class Order:
    """One row to make: the method, its options, and the positions of the ingredients it may use (None: all)."""

    row: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    subset: tuple[int, ...] | None = None


def run(cfg: Config) -> bool:
    """Choose, then measure, every row that is not complete."""
    folder = load_pool(cfg)
    inputs = soup_inputs(cfg, folder.ingredients)
    for name, reason in folder.missing.items():
        print(f"soup: ingredient {name} is not in the pool: {reason}")
    if manifests.complete(cfg.run.soups, inputs):
        print(f"soup: complete, {len(list(cfg.run.soups.glob('*.json'))) - 1} soups in {cfg.run.soups}")
        return False
    key = storage.fingerprint({**inputs, "sets": None})  # a test set that comes later changes no choice
    decode_once(cfg, [cfg.data.holdout, *test_names(cfg)])
    orders = plan(cfg, len(folder.ingredients))
    todo = [o for o in orders if not _chosen(cfg, o.row, key)]
    for order, soup in run_tasks(
        functools.partial(_choose, cfg), todo, worker_count(cfg.finetune.parallel), "soup: choosing"
    ):
        write_soup(cfg.run.soup(order.row), soup, inputs=key)
    rows = [o.row for o in orders] + _interpolations(cfg, folder.ingredients, key)
    for _ in run_tasks(functools.partial(_measure, cfg), rows, worker_count(cfg.finetune.parallel), "soup: measuring"):
        pass
    files = [cfg.run.soup(row) for row in rows] + [cfg.run.mixed(row) for row in cfg.soup.write]
    manifests.finish(cfg.run.soups, inputs, files, missing=folder.missing)
    print(f"soup: {len(rows)} rows -> {cfg.run.soups}")
    return True


def plan(cfg: Config, count: int) -> list[Order]:
    """Every row that a method chooses from the pool, the slowest first; WiSE-FT's follow from two of them."""
    learned = {
        "epochs": cfg.soup.learned_epochs,
        "lr": cfg.soup.learned_lr,
        "batch_size": cfg.soup.learned_batch_size,
        "seed": cfg.soup.seed,
    }
    orders = [Order("learned", "learned", learned), Order("learned_layers", "learned_layers", learned)]
    strict = {"strict": cfg.protocol == "released"}
    orders += [Order("greedy_replacement", "greedy_replacement", strict)]
    orders += [Order(f"greedy_random_{j}", "greedy", {"order_seed": j, **strict}) for j in range(cfg.soup.orders)]
    orders += [Order(m, m, strict) for m in ("greedy", "greedy_ensemble")]
    orders += [Order(m, m) for m in ("uniform", "best", "second_best", "ensemble")]
    orders += [Order(_registered(m), m) for m in cfg.soup.also if m not in {o.method for o in orders}]
    shuffled = random.Random(cfg.soup.seed).sample(range(count), count)
    for k in curve_points(count):
        first = tuple(sorted(shuffled[:k]))
        orders += [Order(f"curve_{k:03d}_{m}", m, {}, first) for m in ("best", "uniform", "ensemble")]
        orders += [Order(f"curve_{k:03d}_greedy", "greedy", strict, first)]
    return orders


def _registered(method: str) -> str:
    if method not in METHODS:
        raise ValueError(f"soup.also: no such method: {method}; expected one of {', '.join(METHODS)}")
    return method


def _interpolations(cfg: Config, ingredients: list[Ingredient], key: str) -> list[str]:
    """WiSE-FT towards the best individual and the greedy soup (appendix D); the rows' names.

    None where the initialization is not known: an imported pool may come without it.
    """
    initial = initial_models(cfg).get("initialization")
    if initial is None:
        return []
    rows = []
    for base in ("best", "greedy"):
        soup = read_soup(cfg.run.soup(base))
        for alpha in cfg.evaluate.wise_ft:
            rows.append(f"wise_ft_{base}_{alpha:g}")
            write_soup(cfg.run.soup(rows[-1]), METHODS["wise_ft"](initial, soup, alpha=alpha), inputs=key)
    return rows


def _choose(cfg: Config, order: Order) -> Soup:
    return METHODS[order.method](pool(cfg, order.subset), **order.options)


def _measure(cfg: Config, row: str) -> None:
    """Mix a soup and evaluate it everywhere; its file then names the hash of the mixed weights."""
    soup = read_soup(cfg.run.soup(row))
    if soup.space == "logits":
        return  # an ensemble is made of its ingredients' cached logits
    state = mixed(cfg, soup)
    sha256 = state_dicts.state_sha256(state)
    for name in [cfg.data.holdout, *test_names(cfg)]:
        logits_of(cfg, name, sha256, state)
    if row in cfg.soup.write:
        storage.save_weights(cfg.run.mixed(row), state)
    write_soup(cfg.run.soup(row), soup, **{**_extras(cfg.run.soup(row)), "sha256": sha256})
