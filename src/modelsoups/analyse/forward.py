"""Logits on some images of a data set: landscapes look at many models, for which a part of the images is enough."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modelsoups.config import Config
from modelsoups.core import metrics
from modelsoups.data.shards import ShardSet
from modelsoups.data.transforms import eval_crop, to_uint8
from modelsoups.evaluate import all_pixels, forward, normalise, open_set, shell


def kept_images(cfg: Config, name: str, images: int | None) -> np.ndarray:
    """Positions of at most `images` images spread evenly over a set; null: all of them."""
    n = len(open_set(cfg.data.dir, name))
    return np.arange(n) if images is None or images >= n else np.linspace(0, n - 1, images).round().astype(int)


def inputs_of(cfg: Config, name: str, images: int | None) -> tuple[Tensor, Tensor]:
    """uint8 pixels_NCHW and labels_N of some images."""
    dataset = open_set(cfg.data.dir, name)
    picks = kept_images(cfg, name, images)
    labels_N = torch.from_numpy(dataset.labels_N)[torch.from_numpy(picks)]
    size = shell(cfg, len(dataset.classes)).image_size
    if len(picks) == len(dataset):
        return all_pixels(str(dataset.folder), dataset.sha256, size), labels_N
    return _some_pixels(str(dataset.folder), dataset.sha256, size, len(picks)), labels_N


@functools.lru_cache(maxsize=16)
def _some_pixels(folder: str, sha256: str, image_size: int, images: int) -> Tensor:
    """Decoded once a process; sha256 is part of the key."""
    dataset, crop = ShardSet(Path(folder)), eval_crop(image_size)
    picks = np.linspace(0, len(dataset) - 1, images).round().astype(int)
    return torch.stack([to_uint8(crop(dataset.image(int(i)))) for i in picks])


@torch.inference_mode()
def forward_some(cfg: Config, name: str, state: Mapping[str, Tensor], images: int | None) -> tuple[Tensor, Tensor]:
    """Projected logits_NC, float32 on the CPU, and labels_N of some images of a set."""
    dataset = open_set(cfg.data.dir, name)
    if images is None or images >= len(dataset):
        return forward(cfg, name, state), torch.from_numpy(dataset.labels_N)
    pixels_NCHW, labels_N = inputs_of(cfg, name, images)
    model = shell(cfg, len(dataset.classes))
    model.load_state_dict(dict(state))
    rows = [model(normalise(model, part)).float().cpu() for part in pixels_NCHW.split(cfg.evaluate.batch_size)]
    return metrics.project(torch.cat(rows), dataset.projection), labels_N
