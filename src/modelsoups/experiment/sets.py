"""Data sets -> WebDataset shards, one folder and one manifest a set: `modelsoups prepare`.

A library knows which sets exist and how to make them. It is a module with names(data),
inputs(data, protocol, name), facts(data, protocol, name) and make(data, protocol, names, workers).
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

from modelsoups.config.schema import Config, DataConfig
from modelsoups.data.shards import ShardSet
from modelsoups.disk import manifests

LIBRARIES = {
    "iconnet": "modelsoups.miniature.library",
    "imagenet": "modelsoups.data.imagenet.library",
    "folders": "modelsoups.data.folders",
}


def available(cfg: Config) -> list[str]:
    """The sets of the experiment that are prepared, in order."""
    return [name for name in library(cfg.data).names(cfg.data) if manifests.manifest_of(Path(cfg.data.dir) / name)]


def set_inputs(cfg: Config, name: str) -> dict[str, Any]:
    """What a set is made from: its shards are complete when they were made from this."""
    made: dict[str, Any] = library(cfg.data).inputs(cfg.data, cfg.protocol, name)
    return made


def set_facts(cfg: Config, name: str) -> dict[str, Any]:
    """What readers of a set need besides its images; see `shards.finish_set`."""
    known: dict[str, Any] = library(cfg.data).facts(cfg.data, cfg.protocol, name)
    return known


def library(data: DataConfig) -> Any:
    """The module in LIBRARIES that data.library names."""
    return importlib.import_module(LIBRARIES[data.library])


def test_names(cfg: Config) -> list[str]:
    """The data sets that are only looked at when everything has been chosen: the test set, and the shifts and extra
    sets that are prepared. Sets that give other labels to the test set's images are not among them: its logits do."""
    others = [n for n in [*cfg.data.shifts, *cfg.data.extra] if is_prepared(cfg, n)]
    return [cfg.data.test, *(n for n in others if open_set(cfg.data.dir, n).scoring is None)]


def evaluated(cfg: Config) -> list[str]:
    """The data sets that every ingredient is evaluated on.

    An imported pool can be looked at without the hold-out of its authors; nothing can be chosen then.
    """
    without = cfg.pool == "imported" and not is_prepared(cfg, cfg.data.holdout)
    return test_names(cfg) if without else [cfg.data.holdout, *test_names(cfg)]


def missing_names(cfg: Config) -> list[str]:
    """The shifts and extra sets of the experiment that are not prepared."""
    return [n for n in [*cfg.data.shifts, *cfg.data.extra] if not is_prepared(cfg, n)]


def is_prepared(cfg: Config, name: str) -> bool:
    """Whether `prepare` has made a set; opening it says if it is damaged."""
    return (Path(cfg.data.dir) / name / manifests.MANIFEST).exists()


@functools.lru_cache(maxsize=32)
def open_set(folder: str, name: str) -> ShardSet:
    return ShardSet(Path(folder) / name)
