"""The soups of a run: what they depend on, their files, and their mixed weights."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelsoups.config.schema import Config
from modelsoups.disk import storage
from modelsoups.experiment.ingredients import initial_models, load_pool, load_weights, open_weights
from modelsoups.experiment.logits import crop_store, forward, logits_of, shell
from modelsoups.experiment.sets import open_set, test_names
from modelsoups.models.classifier import normalise
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.soup.methods import Pool, model_gradient
from modelsoups.weights.mixing import mix_in_memory

STATES_IN_MEMORY = 4 * 2**30  # bytes of checkpoints that a process keeps; a larger pool is read again from disk


CURVE = (1, 2, 4, 8, 16, 24, 36, 48, 72)  # numbers of models in Figure B.1


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


def curve_points(count: int) -> list[int]:
    """Numbers of models, short of all of them: those are the table's own rows."""
    return [k for k in CURVE if k < count]


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
        store = crop_store(cfg.run.root / "pixels")
        pixels_NCHW = store.pixels(holdout, model.image_size)
        if pixels_NCHW is None:  # larger than the limit on disk
            pixels_NCHW = store.in_memory(holdout, model.image_size)
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


def mixed(cfg: Config, soup: Soup) -> dict[str, Tensor]:
    """The weights of a soup over the run's ingredients and initial model, streamed: one soup's in memory, no others."""
    known = {i.id: i for i in [*load_pool(cfg).ingredients, *initial_models(cfg).values()]}
    for name, sha256 in zip(soup.ingredients, soup.hashes, strict=True):
        if name not in known or known[name].sha256 != sha256:
            raise ValueError(f"soup {soup.method}: ingredient {name} is missing or has changed since it was chosen")
    return mix_in_memory([open_weights(known[name]) for name in soup.ingredients], soup.coefficients)


def write_soup(path: Path, soup: Soup, **extras: str) -> None:
    """A soup's JSON, with `inputs` (fingerprint of what it was chosen from) and `sha256` (of the mixed weights)."""
    storage.write_json(path, {**soup.to_json(), **extras})


def read_soup(path: Path) -> Soup:
    if not path.exists():
        raise ValueError(f"{path} is missing; run `modelsoups soup` first")
    content = storage.read_json(path)
    try:
        return Soup.from_json({k: v for k, v in content.items() if k not in EXTRAS})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


EXTRAS = ("inputs", "sha256")


def _extras(path: Path) -> dict[str, str]:
    return {k: v for k, v in storage.read_json(path).items() if k in EXTRAS}


def _chosen(cfg: Config, row: str, key: str) -> bool:
    path = cfg.run.soup(row)
    return path.exists() and _extras(path).get("inputs") == key
