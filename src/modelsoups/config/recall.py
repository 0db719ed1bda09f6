"""Reopens a run by its name: stores its overrides, and adds them to those of later commands."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from modelsoups.config.compose import load
from modelsoups.config.schema import Config
from modelsoups.disk import storage
from modelsoups.disk.paths import Run

# Sections that determine a run's results; once stored, only the stages in SETTLED_BY replace them.
MADE_WITH = ("task", "model", "data", "heads", "sweep", "recipe", "protocol", "pool")
SETTLED = ("experiment", *MADE_WITH)
SETTLED_BY = {"prepare": ("data", "protocol"), "heads": ("model", "heads"), "sweep": SETTLED}
NOT_KEPT = ("ingredient", "submit", "export", "plan", "pretrain", "analyse", "wandb", "track", "cluster", "hydra")


def open_run(overrides: Sequence[str]) -> Config:
    """Return a run's configuration: its stored overrides, then the `overrides` of the command.

    If both set a key, the command's value wins; if the key determines the run's results, stderr
    reports both values. Raises ValueError as `load` does.
    """
    config = load(overrides)
    path = config.run.overrides
    if not path.exists():
        return config
    kept: list[str] = list(storage.read_object(path, "overrides")["overrides"])
    given = {_key(override) for override in overrides}
    joined = [*(k for k in kept if _key(k) not in given), *overrides]
    if joined == list(overrides) and set(kept) <= set(overrides):
        return config
    try:
        opened, stored = load(joined), load(kept)
    except ValueError as error:
        raise ValueError(f"{error} (with the overrides that are stored in {path})") from error
    before, now = asdict(stored), asdict(opened)
    for section in MADE_WITH:
        for key, old, new in _differences(section, before[section], now[section]):
            print(
                f"modelsoups: {config.run.root} was made with {key}={old}; this command sets {key}={new}",
                file=sys.stderr,
            )
    return opened


def keep_overrides(run: Run, overrides: Sequence[str], stage: str) -> None:
    """Store a finished stage's overrides in the run folder, where `open_run` finds them.

    Options of a single command, such as export.row, are not stored. Overrides that determine the
    models, such as recipe.lr, are replaced only by the stages prepare, heads and sweep.
    """
    path = run.overrides
    before: list[str] | None = storage.read_object(path, "overrides")["overrides"] if path.exists() else None
    kept = [o for o in overrides if _section(o) not in NOT_KEPT]
    if before is not None:
        others = set(SETTLED) - set(SETTLED_BY.get(stage, ()))
        kept = [*(o for o in before if _section(o) in others), *(o for o in kept if _section(o) not in others)]
    if before is None or sorted(kept) != sorted(before):
        storage.write_json(path, {"overrides": kept})


def _section(override: str) -> str:
    """Return an override's section or group: recipe for +recipe.lr=1e-4, model for model/x=y."""
    return _key(override).partition(".")[0].partition("/")[0]


def _key(override: str) -> str:
    """Return the key of an override: recipe.lr for +recipe.lr=1e-4."""
    return override.lstrip("+~").partition("=")[0]


def _differences(name: str, before: Any, now: Any) -> list[tuple[str, Any, Any]]:
    """Return (dotted key, old value, new value) for each differing key of two nested dicts."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [] if before == now else [(name, before, now)]
    found = []
    for key in {**before, **now}:
        found += _differences(f"{name}.{key}", before.get(key), now.get(key))
    return found
