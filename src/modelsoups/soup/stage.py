"""Coefficients by every method of Table 3, chosen on the hold-out alone, then evaluated: `modelsoups soup`.

Writes runs/<name>/soups/<row>.json, a soup each, and the mixed checkpoints of soup.write as .safetensors. No test set
is touched before the last coefficient has been chosen: `_choose` sees a Pool, which holds none; `_measure` comes after.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelsoups import runs
from modelsoups.core import weights
from modelsoups.core.methods import METHODS, Pool, model_gradient
from modelsoups.core.types import Ingredient, Soup
from modelsoups.evaluate import (
    all_pixels,
    decode_once,
    forward,
    kept_pixels,
    logits_of,
    normalise,
    open_set,
    shell,
    test_names,
    workers,
)
from modelsoups.parallel import run_tasks
from modelsoups.pool import initial_models, load_pool, load_weights, open_weights
from modelsoups.schema import Config
from modelsoups.soup.mixing import mix_in_memory

STATES_IN_MEMORY = 4 * 2**30  # bytes of checkpoints that a process keeps; a larger pool is read again from disk
CURVE = (1, 2, 4, 8, 16, 24, 36, 48, 72)  # numbers of models in Figure B.1


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
    if runs.complete(cfg.run.soups, inputs):
        print(f"soup: complete, {len(list(cfg.run.soups.glob('*.json'))) - 1} soups in {cfg.run.soups}")
        return False
    key = runs.fingerprint({**inputs, "sets": None})  # a test set that comes later changes no choice
    decode_once(cfg, [cfg.data.holdout, *test_names(cfg)])
    orders = plan(cfg, len(folder.ingredients))
    todo = [o for o in orders if not _chosen(cfg, o.row, key)]
    for order, soup in run_tasks(functools.partial(_choose, cfg), todo, workers(cfg), "soup: choosing"):
        write_soup(cfg.run.soup(order.row), soup, inputs=key)
    rows = [o.row for o in orders] + _interpolations(cfg, folder.ingredients, key)
    for _ in run_tasks(functools.partial(_measure, cfg), rows, workers(cfg), "soup: measuring"):
        pass
    files = [cfg.run.soup(row) for row in rows] + [cfg.run.mixed(row) for row in cfg.soup.write]
    runs.finish(cfg.run.soups, inputs, files, missing=folder.missing)
    print(f"soup: {len(rows)} rows -> {cfg.run.soups}")
    return True


def soup_inputs(cfg: Config, ingredients: list[Ingredient]) -> dict[str, Any]:
    """What the soups depend on: ingredients, initial models, data sets, options."""
    return {
        "ingredients": {i.id: i.sha256 for i in ingredients},
        "initial": {row: i.sha256 for row, i in initial_models(cfg).items()},
        "holdout": open_set(cfg.data.dir, cfg.data.holdout).sha256,
        "sets": {n: open_set(cfg.data.dir, n).sha256 for n in test_names(cfg)},
        "soup": asdict(cfg.soup),
        "protocol": cfg.protocol,
        "wise_ft": cfg.evaluate.wise_ft,
    }


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


def curve_points(count: int) -> list[int]:
    """Numbers of models, short of all of them: those are the table's own rows."""
    return [k for k in CURVE if k < count]


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


def pool(cfg: Config, subset: tuple[int, ...] | None = None) -> Pool:
    """The run's ingredients, or some of them by position, as the methods see them."""
    found = load_pool(cfg).ingredients
    chosen = tuple(found if subset is None else [found[i] for i in subset])
    holdout = open_set(cfg.data.dir, cfg.data.holdout)
    logits = [logits_of(cfg, cfg.data.holdout, i.sha256) for i in chosen]
    small = sum(Path(i.path).stat().st_size for i in found) <= STATES_IN_MEMORY
    load = _load_kept if small else load_weights

    def gradient(state: Mapping[str, Tensor], beta: float, index_B: Tensor) -> tuple[float, float, dict[str, Tensor]]:
        model = shell(cfg, len(holdout.classes))
        pixels_NCHW = kept_pixels(cfg, holdout, model.image_size)
        if pixels_NCHW is None:  # over the budget of the disk: in memory then
            pixels_NCHW = all_pixels(str(holdout.folder), holdout.sha256, model.image_size)
        images_BCHW = normalise(model, pixels_NCHW[index_B])
        return model_gradient(model, state, beta, images_BCHW, labels_N[index_B].to(images_BCHW.device))

    labels_N = torch.from_numpy(holdout.labels_N)
    return Pool(
        ingredients=chosen,
        logits=tuple(x.logits_NC for x in logits),
        labels_N=labels_N,
        state=lambda i: load(chosen[i]),
        evaluate=lambda state: forward(cfg, cfg.data.holdout, state),
        gradient=gradient,
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
    )


@functools.cache
def _load_kept(ingredient: Ingredient) -> dict[str, Tensor]:
    return load_weights(ingredient)


def _measure(cfg: Config, row: str) -> None:
    """Mix a soup and evaluate it everywhere; its file then names the hash of the mixed weights."""
    soup = read_soup(cfg.run.soup(row))
    if soup.space == "logits":
        return  # an ensemble is made of its ingredients' cached logits
    state = mixed(cfg, soup)
    sha256 = weights.state_sha256(state)
    for name in [cfg.data.holdout, *test_names(cfg)]:
        logits_of(cfg, name, sha256, state)
    if row in cfg.soup.write:
        runs.save_weights(cfg.run.mixed(row), state)
    write_soup(cfg.run.soup(row), soup, **{**_extras(cfg.run.soup(row)), "sha256": sha256})


def mixed(cfg: Config, soup: Soup) -> dict[str, Tensor]:
    """The weights of a soup over the run's ingredients and initial model, streamed: one soup's in memory, no others."""
    known = {i.id: i for i in [*load_pool(cfg).ingredients, *initial_models(cfg).values()]}
    for name, sha256 in zip(soup.ingredients, soup.hashes, strict=True):
        if name not in known or known[name].sha256 != sha256:
            raise ValueError(f"soup {soup.method}: ingredient {name} is missing or has changed since it was chosen")
    return mix_in_memory([open_weights(known[name]) for name in soup.ingredients], soup.coefficients)


def write_soup(path: Path, soup: Soup, **extras: str) -> None:
    """A soup's JSON, with `inputs` (fingerprint of what it was chosen from) and `sha256` (of the mixed weights)."""
    runs.write_json(path, {**soup.to_json(), **extras})


def read_soup(path: Path) -> Soup:
    if not path.exists():
        raise ValueError(f"{path} is missing; run `modelsoups soup` first")
    content = runs.read_json(path)
    try:
        return Soup.from_json({k: v for k, v in content.items() if k not in EXTRAS})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


EXTRAS = ("inputs", "sha256")


def _extras(path: Path) -> dict[str, str]:
    return {k: v for k, v in runs.read_json(path).items() if k in EXTRAS}


def _chosen(cfg: Config, row: str, key: str) -> bool:
    path = cfg.run.soup(row)
    return path.exists() and _extras(path).get("inputs") == key
