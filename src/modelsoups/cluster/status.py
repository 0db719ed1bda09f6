"""Shows the progress of a sweep, from the run folder and SLURM's queue: `modelsoups status`.

Of each model it reads only manifest.json or the last line of metrics.jsonl, so that a sweep of a
thousand models takes only seconds.
"""

import contextlib
import functools
import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from modelsoups.cluster import slurm
from modelsoups.disk import lock, manifests, paths, storage
from modelsoups.disk.paths import Run
from modelsoups.experiment.experiment import Experiment
from modelsoups.recipes.recipe import Recipe

SILENT = 600  # seconds without metrics after which an ingredient without a job counts as stopped
STATES = ("done", "running", "queued", "stopped", "not started", "failed")


@dataclass(frozen=True)
class IngredientStatus:
    index: int
    state: str  # one of STATES
    epoch: float
    epochs: float
    hours: float = 0.0  # of training so far
    ranks: int = 1  # processes (one per GPU) that train it
    loss: float | None = None
    note: str = ""

    @property
    def hours_left(self) -> float | None:
        """Return the hours of training left at the speed so far; None before the first metrics."""
        return self.hours / self.epoch * (self.epochs - self.epoch) if self.epoch else None


def run(experiment: Experiment) -> bool:
    """Print a table of running, stopped and failed models, totals, and the queued SLURM jobs."""
    jobs = []
    if slurm.available():
        try:
            jobs = slurm.queue(experiment.files.root)
        except ValueError as error:
            print(f"status: SLURM's queue cannot be read ({error}); using the run folder alone")
    train = experiment.sets.folder(experiment.config.data.train)
    statuses = scan(experiment.files, experiment.draw.recipes(), jobs, train)
    active = [s for s in statuses if s.state in ("running", "stopped", "failed")]
    if active:
        Console().print(_table(active))
    print(*summary(statuses), sep="\n")
    for job in jobs:
        if job.index is None:
            reason = f" ({job.reason})" if job.reason not in ("", "None") else ""
            print(f"{job.name}: job {job.label} is {job.state.lower()}{reason}")
    return False


def scan(files: Run, recipes: list[Recipe], jobs: list[slurm.Job], train: Path | None = None) -> list[IngredientStatus]:
    """Return the status of each ingredient. train: folder of the training set, which recipe.steps needs."""
    tasks = {job.index: job for job in jobs if job.name == "sweep"}
    numbered = enumerate(recipes)
    return [_status(files.ingredient(i), i, epochs_of(recipe, train), tasks.get(i)) for i, recipe in numbered]


def epochs_of(recipe: Recipe, train: Path | None) -> float:
    """Return the length of training in epochs; ValueError if it is in steps and `train` is not prepared."""
    if recipe.epochs is not None:
        return recipe.epochs
    manifest = manifests.manifest_of(train) if train else None
    if manifest is None:
        raise ValueError(f"data set {train} is not prepared, so the epochs of recipe.steps={recipe.steps} are unknown")
    return recipe.total_steps(0) / max(1, manifest["images"] // recipe.batch_size)


def _status(folder: Path, index: int, epochs: float, job: slurm.Job | None) -> IngredientStatus:
    make = functools.partial(IngredientStatus, index)
    if not folder.exists() and job is None:
        return make("not started", 0.0, epochs)
    manifest = manifests.manifest_of(folder)
    if manifest is not None:
        ranks = manifests.training_ranks(manifest)
        hours = manifest.get("seconds", 0.0) / 3600
        return make("done", epochs, epochs, hours, ranks, manifest.get("loss"))
    row, age = last_row(folder / paths.METRICS)
    timing = row.get("timing", {})
    hours, ranks = timing.get("seconds", 0.0) / 3600, timing.get("ranks", 1)
    note = ""
    if (failed := folder / paths.FAILED).exists():
        state, note = "failed", str(storage.read_object(failed, "reason")["reason"])
    elif job is not None:
        state = "queued" if job.state == "PENDING" else "running"
        where = job.nodes or (job.reason if job.reason != "None" else "")
        note = f"{job.label} {where}".strip()
    elif lock.lock_files(folder) and age < SILENT:
        state = "running"
    else:
        state, note = "stopped", "no running job; resumes when the sweep is started again"
    return make(state, row.get("epoch", 0.0), epochs, hours, ranks, row.get("loss"), note)


def last_row(metrics: Path) -> tuple[dict[str, Any], float]:
    """Return the last complete line of metrics.jsonl and the file's age (s); ({}, 0) if missing."""
    try:
        lines = metrics.read_bytes()[-4096:].split(b"\n")[:-1]
        age = time.time() - metrics.stat().st_mtime
    except FileNotFoundError:
        return {}, 0.0
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            return dict(json.loads(line)), age
    return {}, age


def summary(statuses: list[IngredientStatus]) -> list[str]:
    """Return two lines of text: how many models are in each state, and GPU-hours spent and left."""
    counts = Counter(s.state for s in statuses)
    line = ", ".join(f"{counts[name]} {name}" for name in STATES if counts[name])
    spent = sum(s.hours * s.ranks for s in statuses)
    trained = sum(s.epoch for s in statuses)
    to_train = sum(s.epochs - s.epoch for s in statuses if s.state not in ("done", "failed"))
    left = "the hours left are unknown until the first ingredient writes metrics"
    if trained:
        left = f"about {spent / trained * to_train:.1f} left"
    hours = f"GPU-hours: {spent:.1f} spent on training, {left}"
    return [f"{len(statuses)} ingredients: {line}", hours]


def _table(statuses: list[IngredientStatus]) -> Table:
    table = Table(title="ingredients", title_justify="left")
    for name in ("ingredient", "state", "epoch", "loss", "left", "note"):
        table.add_column(name, justify="right" if name in ("epoch", "loss", "left") else "left")
    for s in statuses:
        left = s.hours_left if s.state == "running" else None
        table.add_row(
            f"{s.index:03d}",
            s.state,
            f"{s.epoch:.1f} of {s.epochs:.4g}" if s.epoch else f"{s.epochs:.4g}",
            f"{s.loss:.3f}" if isinstance(s.loss, float) else "",
            "" if left is None else f"{left:.1f} h" if left >= 1 else f"{left * 60:.0f} min",
            escape(s.note),
        )
    return table
