"""The sweep at a glance: `modelsoups status`, from the run folders and, where there is SLURM, its queue.

Reads a manifest or the last line of metrics.jsonl an ingredient, no weights: seconds even for a thousand of them.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from modelsoups.cluster import slurm
from modelsoups.config.schema import Config
from modelsoups.disk import lock, manifests, paths, storage
from modelsoups.experiment.draw import load_draw

SILENT = 600  # seconds without a line of metrics after which a run without a job is taken for stopped
STATES = ("done", "running", "queued", "stopped", "not started", "failed")


@dataclass(frozen=True)
class State:
    """Where one ingredient is. epoch of epochs; hours: of the clock, so far; ranks: processes (GPUs) it trains on."""

    index: int
    state: str
    epoch: float
    epochs: int
    hours: float
    ranks: int
    loss: float | None
    note: str = ""

    @property
    def hours_left(self) -> float | None:
        """By its own speed so far; None when it has none yet."""
        return self.hours / self.epoch * (self.epochs - self.epoch) if self.epoch else None


def run(cfg: Config) -> bool:
    """Print each ingredient that runs, stopped or failed, and the sums of all."""
    jobs = []
    if slurm.available():
        try:
            jobs = slurm.queue(cfg.run.root)
        except ValueError as error:
            print(f"status: SLURM's queue cannot be read ({error}); this is what the folders say")
    states = scan(cfg, jobs)
    told = [s for s in states if s.state in ("running", "stopped", "failed")]
    if told:
        Console().print(_table(told))
    for line in summary(states):
        print(line)
    for job in jobs:
        if job.index is None:
            why = f" ({job.reason})" if job.reason not in ("", "None") else ""
            print(f"{job.name}: job {job.label} is {job.state.lower()}{why}")
    return False


def scan(cfg: Config, jobs: list[slurm.Job]) -> list[State]:
    """The state of every ingredient of the draw, in order; ValueError when there is no draw."""
    tasks = {j.index: j for j in jobs if j.name == "sweep" and j.index is not None}
    epochs = [recipe.epochs for recipe in load_draw(cfg)]
    return [_state(cfg.run.ingredient(i), i, n, tasks.get(i)) for i, n in enumerate(epochs)]


def _state(folder: Path, index: int, epochs: int, job: slurm.Job | None) -> State:
    manifest = manifests.manifest_of(folder) if folder.exists() else None
    if manifest is not None:
        hours = manifest.get("seconds", 0.0) / 3600
        return State(index, "done", epochs, epochs, hours, manifests.training_ranks(manifest), manifest.get("loss"))
    row, age = last_row(folder / paths.METRICS)
    epoch, loss = row.get("epoch", 0.0), row.get("loss")
    timing = row.get("timing", {})
    hours, ranks = timing.get("seconds", 0.0) / 3600, timing.get("ranks", 1)
    if (failed := folder / paths.FAILED).exists():
        return State(index, "failed", epoch, epochs, hours, ranks, loss, str(storage.read_json(failed)["reason"]))
    if job is not None:
        state = "queued" if job.state == "PENDING" else "running"
        where = job.nodes or (job.reason if job.reason != "None" else "")
        return State(index, state, epoch, epochs, hours, ranks, loss, f"{job.label} {where}".strip())
    if lock.lock_files(folder) and age < SILENT:
        return State(index, "running", epoch, epochs, hours, ranks, loss)
    if row or folder.exists():
        return State(index, "stopped", epoch, epochs, hours, ranks, loss, "no job; continues when it is started again")
    return State(index, "not started", 0.0, epochs, 0.0, 1, None)


def last_row(metrics: Path) -> tuple[dict[str, Any], float]:
    """The last whole line of metrics.jsonl, and the seconds since it was written; ({}, 0) when there is none."""
    try:
        with open(metrics, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4096))
            lines = file.read().split(b"\n")[:-1]
            age = time.time() - os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return {}, 0.0
    for line in reversed(lines):
        try:
            return dict(json.loads(line)), age
        except ValueError:
            continue
    return {}, age


def summary(states: list[State]) -> list[str]:
    """How many are in each state, and GPU-hours spent and left."""
    counts = Counter(s.state for s in states)
    line = ", ".join(f"{counts[name]} {name}" for name in STATES if counts[name])
    spent = sum(s.hours * s.ranks for s in states)
    trained = sum(s.epoch for s in states)
    open_epochs = sum(s.epochs - s.epoch for s in states if s.state not in ("done", "failed"))
    left = f"about {spent / trained * open_epochs:.1f} left" if trained else "what is left is known after the first"
    return [f"{len(states)} ingredients: {line}", f"GPU-hours: {spent:.1f} spent on training, {left}"]


def _table(states: list[State]) -> Table:
    table = Table(title="ingredients", title_justify="left")
    for name in ("ingredient", "state", "epoch", "loss", "left", "note"):
        table.add_column(name, justify="right" if name in ("epoch", "loss", "left") else "left")
    for s in states:
        left = s.hours_left if s.state == "running" else None
        table.add_row(
            f"{s.index:03d}",
            s.state,
            f"{s.epoch:.1f} of {s.epochs}" if s.epoch else f"{s.epochs}",
            f"{s.loss:.3f}" if isinstance(s.loss, float) else "",
            "" if left is None else f"{left:.1f} h" if left >= 1 else f"{left * 60:.0f} min",
            escape(s.note),
        )
    return table
