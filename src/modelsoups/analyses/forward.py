"""Logits on the images that the analyses look at, cached: a part of a test set is enough for many models.

Legend: N images, C classes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from modelsoups.config.schema import Config
from modelsoups.data.shards import ShardSet
from modelsoups.data.transforms import eval_crop, to_uint8
from modelsoups.disk import storage
from modelsoups.experiment.ingredients import load_weights
from modelsoups.experiment.logits import crop_store, forward, logits_of, shell
from modelsoups.experiment.sets import open_set
from modelsoups.models.classifier import normalise
from modelsoups.soup.coefficients import Ingredient
from modelsoups.stats import projection
from modelsoups.stats.scores import Logits


def looked_at(cfg: Config, name: str, images: int | None = None) -> np.ndarray:
    """Positions of analyse.images images (or `images`) spread evenly over a set; all of the hold-out, which chooses."""
    n = len(open_set(cfg.data.dir, name))
    most = images or (None if name == cfg.data.holdout else cfg.analyse.images)
    return np.arange(n) if most is None or most >= n else np.linspace(0, n - 1, most).round().astype(int)


def inputs_of(cfg: Config, name: str, images: int | None = None) -> tuple[Tensor, Tensor]:
    """uint8 pixels_NCHW and labels_N of the images looked at."""
    dataset = open_set(cfg.data.dir, name)
    picks = looked_at(cfg, name, images)
    labels_N = torch.from_numpy(dataset.labels_N)[torch.from_numpy(picks)]
    size = shell(cfg, len(dataset.classes)).image_size
    if len(picks) == len(dataset):
        return crop_store(cfg.run.root / "pixels").in_memory(dataset, size), labels_N
    return _pixels(str(dataset.folder), dataset.sha256, size, tuple(picks.tolist())), labels_N


@functools.lru_cache(maxsize=16)
def _pixels(folder: str, sha256: str, image_size: int, picks: tuple[int, ...]) -> Tensor:
    """Decoded once a process; sha256 is part of the key."""
    dataset, crop = ShardSet(Path(folder)), eval_crop(image_size)
    return torch.stack([to_uint8(crop(dataset.image(i))) for i in picks])


@torch.inference_mode()
def forward_part(cfg: Config, name: str, state: Mapping[str, Tensor], images: int | None = None) -> Logits:
    """A model's projected logits, float32 on the CPU, on the images looked at."""
    dataset = open_set(cfg.data.dir, name)
    if len(looked_at(cfg, name, images)) == len(dataset):  # with a loader, where a set is too large for memory
        return Logits(name, forward(cfg, name, state), torch.from_numpy(dataset.labels_N))
    pixels_NCHW, labels_N = inputs_of(cfg, name, images)
    model = shell(cfg, len(dataset.classes))
    model.load_state_dict(dict(state))
    parts = pixels_NCHW.split(cfg.evaluate.batch_size)
    logits_NC = torch.cat([model(normalise(model, part)).float().cpu() for part in parts])
    return Logits(name, projection.project(logits_NC, dataset.projection), labels_N)


def part_logits(cfg: Config, name: str, ingredient: Ingredient) -> Logits:
    """From the cache of `evaluate`, from that of the analyses, or computed and kept there."""
    dataset, picks = open_set(cfg.data.dir, name), torch.from_numpy(looked_at(cfg, name))
    if len(picks) == len(dataset) or _full(cfg, name, ingredient).exists():
        there = _full(cfg, name, ingredient).exists()
        whole = logits_of(cfg, name, ingredient.sha256, None if there else _kept(ingredient))
        return Logits(name, whole.logits_NC[picks], whole.labels_N[picks])
    path = _part(cfg, name, ingredient)
    if not path.exists():
        storage.save_weights(path, {"logits": forward_part(cfg, name, _kept(ingredient)).logits_NC})
    labels_N = torch.from_numpy(dataset.labels_N)[picks]
    return Logits(name, safetensors.torch.load_file(path)["logits"], labels_N)


def is_cached(cfg: Config, name: str, ingredient: Ingredient) -> bool:
    return _full(cfg, name, ingredient).exists() or _part(cfg, name, ingredient).exists()


def _full(cfg: Config, name: str, ingredient: Ingredient) -> Path:
    return cfg.run.logits(ingredient.sha256, name, open_set(cfg.data.dir, name).sha256)


def _part(cfg: Config, name: str, ingredient: Ingredient) -> Path:
    full = _full(cfg, name, ingredient)
    return full.with_name(f"{full.stem}-{len(looked_at(cfg, name))}{full.suffix}")


def _kept(ingredient: Ingredient) -> dict[str, Tensor]:
    return kept_weights(ingredient.path, ingredient.sha256)


@functools.lru_cache(maxsize=12)
def kept_weights(path: str, sha256: str) -> dict[str, Tensor]:
    """A model's weights; the last dozen stay in memory."""
    return load_weights(Ingredient(path, path, sha256, None))
