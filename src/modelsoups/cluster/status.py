"""Shows the progress of a sweep, from the run folder and SLURM's queue: `modelsoups status`.

Of each model it reads only manifest.json or the last line of metrics.jsonl, so that a sweep of a
thousand models takes only seconds.
"""

import contextlib
import functools
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from modelsoups.cluster import outputs, slurm
from modelsoups.cluster.outputs import Output
from modelsoups.cluster.scripts import CHAIN
from modelsoups.disk import lock, manifests, paths, storage
from modelsoups.disk.paths import Run
from modelsoups.disk.terminal import printable
from modelsoups.experiment.experiment import Experiment
from modelsoups.recipes.recipe import Recipe

STATES = ("done", "running", "queued", "stopped", "not started", "failed")
AGAIN = "`modelsoups submit` queues it again"
NEVER = {  # reasons why a job waits that time does not change -> what to do
    "PartitionTimeLimit": "set cluster.time and cluster.stage_time to less than the partition allows",
    "PartitionNodeLimit": "set cluster.nodes to what the partition allows, or another cluster.partition",
    "JobHeldUser": "`scontrol release` it",
    "JobHeldAdmin": "an administrator holds it: ask why",
    "DependencyNeverSatisfied": "an earlier job failed",
    "BadConstraints": "no node has what cluster.options ask for",
    "InvalidAccount": "set another cluster.account",
    "InvalidQOS": "set another cluster.qos",
}


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
    """Print a table of running, stopped and failed models, totals, and the stages that wait or failed."""
    files = experiment.files
    jobs: list[slurm.Job] | None = None  # unknown
    if slurm.available():
        try:
            jobs = slurm.queue(files.slurm)
        except ValueError as error:
            why = printable(str(error).split("; ")[0])[:200]
            print(f"status: SLURM's queue cannot be read ({why}); using only the run folder")
    train = experiment.sets.folder(experiment.config.data.train)
    ended, stages = outputs.newest(files.slurm)
    statuses = scan(files, experiment.draw.recipes(), jobs or [], train, ended)
    active = [s for s in statuses if s.state in ("running", "stopped", "failed")]
    if active:
        Console().print(_table(active))
    print(*summary(statuses), *waiting(jobs or []), *_stages(files, jobs, stages), sep="\n")
    return False


def scan(
    files: Run,
    recipes: list[Recipe],
    jobs: list[slurm.Job],
    train: Path | None = None,
    ended: Mapping[int, Output] | None = None,
) -> list[IngredientStatus]:
    """Return the status of each ingredient.

    train: folder of the training set, which recipe.steps needs; ended: the newest outputs of tasks.
    """
    tasks = {job.index: job for job in jobs if job.name == "sweep"}
    numbered = enumerate(recipes)
    outs = ended or {}
    return [
        _status(files.ingredient(i), i, epochs_of(recipe, train), tasks.get(i) or outs.get(i)) for i, recipe in numbered
    ]


def waiting(jobs: list[slurm.Job]) -> list[str]:
    """Return a line for each reason why tasks of the sweep are queued."""
    pending = [job for job in jobs if job.name == "sweep" and job.state == "PENDING"]
    reasons = Counter(job.reason for job in pending if job.reason not in ("", "None"))
    return [f"sweep: {count} queued: {_explained(reason)}" for reason, count in reasons.most_common()]


def _explained(reason: str) -> str:
    return f"{reason}, and will not start: {NEVER[reason]}" if reason in NEVER else reason


def _stages(files: Run, jobs: list[slurm.Job] | None, ended: Mapping[str, Output]) -> list[str]:
    """Return a line for each job besides the sweep that is queued, or that ended without a result."""
    lines, missing = [], list[str]()
    for name in (piece.name for piece in CHAIN if piece.name != "sweep"):
        queued = [job for job in jobs or [] if job.name == name]
        for job in queued:
            reason = f" ({_explained(job.reason)})" if job.reason not in ("", "None") else ""
            lines.append(f"{name}: job {job.label} is {job.state.lower()}{reason}")
        output = ended.get(name)
        if queued or jobs is None or _is_reported_since(files, output):
            continue
        if output and not output.complete:
            lines.append(f"{name}: job {output.job} ended without its result: {output.reason} ({output.path}); {AGAIN}")
        elif output is None and (files.slurm / f"{name}.sbatch").exists():
            missing.append(name)
    if missing:
        lines.append(f"{', '.join(missing)}: not in the queue, and never started; {AGAIN}")
    return lines


def _is_reported_since(files: Run, output: Output | None) -> bool:
    """Return whether there is a report that is not older than a job's output, but for a minute."""
    with contextlib.suppress(FileNotFoundError):
        made = (files.results / paths.MANIFEST).stat().st_mtime
        return output is None or made + 60 >= output.path.stat().st_mtime
    return False


def epochs_of(recipe: Recipe, train: Path | None) -> float:
    """Return the length of training in epochs; ValueError if it is in steps and `train` is not prepared."""
    if recipe.epochs is not None:
        return recipe.epochs
    manifest = manifests.manifest_of(train) if train else None
    if manifest is None:
        raise ValueError(f"data set {train} is not prepared, so the epochs of recipe.steps={recipe.steps} are unknown")
    return recipe.total_steps(0) / max(1, manifest["images"] // recipe.batch_size)


def _status(folder: Path, index: int, epochs: float, last: slurm.Job | Output | None) -> IngredientStatus:
    """Return an ingredient's status; last: its queued job or else the output of its newest one."""
    make = functools.partial(IngredientStatus, index)
    if not folder.exists() and last is None:
        return make("not started", 0.0, epochs)
    manifest = manifests.manifest_of(folder)
    if manifest is not None:
        ranks = manifests.training_ranks(manifest)
        hours = manifest.get("seconds", 0.0) / 3600
        return make("done", epochs, epochs, hours, ranks, manifest.get("loss"))
    row = last_row(folder / paths.METRICS)
    timing = row.get("timing", {})
    hours, ranks = timing.get("seconds", 0.0) / 3600, timing.get("ranks", 1)
    note = ""
    if (failed := folder / paths.FAILED).exists():
        state, note = "failed", str(storage.read_object(failed, "reason")["reason"])
    elif isinstance(last, slurm.Job):
        state = "queued" if last.state == "PENDING" else "running"
        where = last.nodes or (last.reason if last.reason != "None" else "")
        note = f"{last.label} {where}".strip()
    elif lock.in_use(folder):
        state = "running"
    else:
        state, note = "stopped", "no running job; resumes when the sweep is started again"
        if last is not None and last.reason:
            note = f"{last.reason} (job {last.job}: {last.path}); {AGAIN}"
    return make(state, row.get("epoch", 0.0), epochs, hours, ranks, row.get("loss"), note)


def last_row(metrics: Path) -> dict[str, Any]:
    """Return the last complete line of metrics.jsonl; {} if there is none."""
    try:
        lines = metrics.read_bytes()[-4096:].split(b"\n")[:-1]
    except FileNotFoundError:
        return {}
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            return dict(json.loads(line))
    return {}


def summary(statuses: list[IngredientStatus]) -> list[str]:
    """Return two lines of text: how many models are in each state, and hours of training spent and left."""
    counts = Counter(s.state for s in statuses)
    line = ", ".join(f"{counts[name]} {name}" for name in STATES if counts[name])
    spent = sum(s.hours * s.ranks for s in statuses)
    trained = sum(s.epoch for s in statuses)
    to_train = sum(s.epochs - s.epoch for s in statuses if s.state not in ("done", "failed"))
    left = "those left are unknown until the first ingredient writes metrics"
    if trained:
        left = f"about {spent / trained * to_train:.1f} left"
    hours = f"hours of training, summed over GPUs or processes: {spent:.1f} spent, {left}"
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
