"""A run is found again by its name alone: its overrides are kept in its folder, and joined to those of a command."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from modelsoups.config.compose import load
from modelsoups.config.schema import Config
from modelsoups.disk import storage
from modelsoups.disk.paths import Run

MADE_WITH = ("model", "data", "heads", "sweep", "recipe", "protocol", "pool")  # sections that decide what a run is
NOT_KEPT = ("ingredient", "submit", "export", "plan", "pretrain", "wandb", "cluster", "hydra")


def open_run(overrides: Sequence[str]) -> Config:
    """The configuration of a command on a run: the overrides that the run was made with, then the command's own.

    Of two values for one key the command's is taken, and a line on stderr names both. Raises ValueError as `load`.
    """
    config = load(overrides)
    path = config.run.overrides
    if not path.exists():
        return config
    kept: list[str] = storage.read_json(path)["overrides"]
    given = {_key(override) for override in overrides}
    joined = [*(k for k in kept if _key(k) not in given), *overrides]
    if joined == list(overrides) and set(kept) <= set(overrides):
        return config
    opened = load(joined)
    before, now = asdict(load(kept)), asdict(opened)
    for section in MADE_WITH:
        for key, old, new in _differences(section, before[section], now[section]):
            print(
                f"modelsoups: {config.run.root} was made with {key}={old}; this command says {key}={new}",
                file=sys.stderr,
            )
    return opened


def keep_overrides(run: Run, overrides: Sequence[str]) -> None:
    """Write down how to open this run again; options of a single command are left out."""
    kept = [o for o in overrides if _key(o).partition(".")[0].partition("/")[0] not in NOT_KEPT]
    path = run.overrides
    if not path.exists() or storage.read_json(path)["overrides"] != kept:
        storage.write_json(path, {"overrides": kept})


def _key(override: str) -> str:
    """The key of an override: recipe.lr of +recipe.lr=1e-4."""
    return override.lstrip("+~").partition("=")[0]


def _differences(name: str, before: Any, now: Any) -> list[tuple[str, Any, Any]]:
    """Keys with different values, with their dots."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [] if before == now else [(name, before, now)]
    found = []
    for key in {**before, **now}:
        found += _differences(f"{name}.{key}", before.get(key), now.get(key))
    return found
