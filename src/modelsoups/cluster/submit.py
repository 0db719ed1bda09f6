"""Submits all jobs of an experiment to a SLURM cluster: `modelsoups submit cluster=mine`.

Jobs that are complete or in the queue are not submitted again, so the command can be repeated.
Soups use the models that have finished (soup.minimum or more). Scripts and the jobs' output are in
runs/<name>/slurm/. With submit.dry_run=true the scripts are printed, not submitted.
"""

import contextlib
import dataclasses
import itertools
import os
import re
import sys
from pathlib import Path

from modelsoups.cluster import environment, slurm
from modelsoups.cluster.scripts import CHAIN, Piece, script
from modelsoups.disk import lock, manifests, paths, storage
from modelsoups.disk.paths import Run
from modelsoups.experiment.experiment import Experiment
from modelsoups.recipes.recipe import Recipe


def run(experiment: Experiment) -> bool:
    """Submit the jobs that are neither complete nor queued; after an error, cancel the new jobs."""
    config, files = experiment.config, experiment.files
    for note in environment.notes(os.environ, config.cluster):
        _say(f"submit: {note}")
    recipes = experiment.draw.planned()
    for recipe in recipes:
        recipe.accumulation(config.cluster.nodes * config.cluster.ranks, config.finetune.at_once)
    if config.submit.dry_run:
        _submit(experiment, recipes, [])
        return False
    slurm.queue(files.slurm)  # an error without SLURM, before anything is written
    with lock.held(files.slurm):  # of two submits at the same time, one is refused
        _submit(experiment, recipes, slurm.settled_queue(files.slurm))
    return False


def _submit(experiment: Experiment, recipes: list[Recipe], queued: list[slurm.Job]) -> None:
    """Submit what is neither complete nor in `queued`, and fix the draw."""
    files, dry = experiment.files, experiment.config.submit.dry_run
    todo, failed = unfinished(files, len(recipes))
    done = len(recipes) - len(todo) - len(failed)
    counts = f"{done} complete, {len(failed)} failed, {len(todo)} to train"
    _say(f"submit: {len(recipes)} ingredients: {counts}")
    for index in failed:
        folder = files.ingredient(index)
        _say(f"submit: ingredient {index:03d} failed and will not be in the soup: {folder}")
    if not (dry or todo or queued) and is_reported(experiment):
        _say(f"submit: everything is complete; the report is {files.results / 'index.html'}")
        return
    chain = Chain(experiment, todo, queued, trained=done)
    if dry:
        chain.submit()
        return
    before = files.draw.read_bytes() if files.draw.exists() else None
    experiment.draw.write()
    try:
        chain.submit()
    except BaseException:
        if before is None:  # the draw is free again
            files.draw.unlink()
        else:
            storage.write_text(files.draw, before.decode())
        raise
    # From now on `Draw.recipes` rejects a changed draw: jobs may start days later.
    storage.write_json(files.draw_manifest, {"sha256": storage.file_sha256(files.draw)})
    _say(f"submit: scripts and output are in {files.slurm}; `modelsoups status` shows the progress")


def _say(text: str) -> None:
    """Print; do nothing if stdout is closed, as after `submit | head`: jobs are submitted all the same."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def unfinished(run: Run, count: int) -> tuple[list[int], list[int]]:
    """Return two lists of model numbers (from 0 to count - 1): still to be trained, and failed."""
    rest = [i for i in range(count) if manifests.manifest_of(run.ingredient(i)) is None]
    failed = [i for i in rest if (run.ingredient(i) / paths.FAILED).exists()]
    return sorted(set(rest) - set(failed)), failed


class Chain:
    """The jobs of an experiment that are still to be submitted, each dependent on the previous one."""

    def __init__(self, experiment: Experiment, todo: list[int], queued: list[slurm.Job], trained: int) -> None:
        """todo: the ingredients to train; trained: how many are complete."""
        self.experiment, self.queued, self.dry = experiment, queued, experiment.config.submit.dry_run
        self.prepared = is_prepared(experiment, trained)
        tasks = {job.index for job in queued if job.name == "sweep"}
        waiting = sorted(set(todo) - tasks)
        portion = experiment.config.submit.portion
        self.indices = waiting[:portion]
        self.left = len(waiting) - len(self.indices)  # for a later submit, with the jobs after the sweep
        self.size = slurm.ARRAY_SIZE if self.dry else slurm.max_array_size()
        self.new: list[int] = []

    def submit(self) -> None:
        """Submit the jobs in order; on an error, cancel them again."""
        try:
            self._submit()
        except BaseException as error:
            try:
                slurm.cancel(self.new)
            except ValueError as second:
                command = " ".join(["scancel", *map(str, self.new)])
                raise ValueError(f"{error}; the jobs before it are still queued ({second}): {command}") from error
            raise

    def _submit(self) -> None:
        dependencies: list[str] = []  # of the next piece
        for piece in CHAIN:
            live = [str(number) for number in sorted({job.id for job in self.queued if job.name == piece.name})]
            parts = self._parts(piece, bool(live))
            others = [f"afterany:{':'.join(live)}"] if live and piece.name != "sweep" else []
            ids: list[str] = []
            for part, indices in parts:
                in_turn = [f"afterany:{ids[-1]}"] if ids and self.experiment.config.cluster.concurrent else []
                ids.append(self._submit_one(part, indices, [*dependencies, *others, *in_turn]))
            if live and not parts:
                _say(f"  {', '.join(live):>8}  {piece.name:<9}is already in the queue")
                self._name_changes(piece, live)
            if piece.name == "sweep" or not ids:  # a new evaluate takes the place of an old one, which may fail
                ids = [*live, *ids]
            dependencies = [f"{piece.after}:{':'.join(ids)}"] if ids else dependencies
            if piece.name == "sweep" and self.left:
                _say(f"submit: {self.left} more ingredients are left for the next `modelsoups submit`")
                return

    def _parts(self, piece: Piece, live: bool) -> list[tuple[Piece, list[int]]]:
        """Return the jobs to submit for a piece, with their ingredients. live: it is in the queue."""
        if piece.name == "sweep":
            groups = itertools.groupby(self.indices, lambda index: index // self.size * self.size)
            return [(dataclasses.replace(piece, offset=offset), list(indices)) for offset, indices in groups]
        needed = not live and not self.prepared if piece.name == "prepare" else self.new or not live
        return [(piece, [])] if needed else []

    def _submit_one(self, piece: Piece, indices: list[int], dependencies: list[str]) -> str:
        """Submit one job, or print it in a dry run; return its id."""
        text = script(self.experiment.config, piece, indices)
        if self.dry:
            options = " ".join(["sbatch", *slurm.dependency_options(dependencies)])
            _say(f"### {piece.name}: {piece.title}\n### {options} {piece.stem}.sbatch\n{text}")
            return f"<{piece.stem}>"
        path = self.experiment.files.slurm / f"{piece.stem}.sbatch"
        storage.write_text(path, text)
        job = slurm.submit(path, dependencies)
        self.new.append(job)
        tasks = f": tasks {slurm.ranges(indices)}" if indices else ""
        after = f", after {' and '.join(dependencies)}" if dependencies else ""
        _say(f"  {job:>8}  {piece.name:<9}{piece.title}{tasks}{after}")
        return str(job)

    def _name_changes(self, piece: Piece, live: list[str]) -> None:
        """Say which settings differ from those that a queued job was submitted with: they have no effect on it."""
        for offset in sorted({job.offset for job in self.queued if job.name == piece.name}):
            part = dataclasses.replace(piece, offset=offset)
            path = self.experiment.files.slurm / f"{part.stem}.sbatch"
            with contextlib.suppress(FileNotFoundError):
                changed = _changed(path, script(self.experiment.config, part, [offset]))
                if changed:
                    way_out = f"`scancel {' '.join(live)}` and submit again, and they have"
                    _say(f"submit: changes have no effect on the queued {piece.name} ({changed}); {way_out}")


def _changed(path: Path, text: str) -> str:
    """Return the names of the options and variables that are other in `text` than in the script `path`."""
    before, now = path.read_text(encoding="utf-8").splitlines(), text.splitlines()
    names = [re.sub(r"^#SBATCH --|[= ].*", "", line) for line in {*before} ^ {*now}]
    return ", ".join(sorted({name for name in names if name not in ("array", "")}))


def is_prepared(experiment: Experiment, trained: int) -> bool:
    """Return whether data sets and initial model are complete, and made with the options that hold now.

    Raises ValueError if data sets were prepared with others, and if the initial model was while
    `trained` ingredients have been fine-tuned from it.
    """
    data, sets = experiment.config.data, experiment.sets
    current = [sets.is_current(name, sources=False) for name in (data.train, data.holdout, data.test, *data.shifts)]
    init = experiment.config.heads.init
    folder = experiment.files.head(init)
    if not all(current) or manifests.manifest_of(folder) is None:
        return False
    if manifests.complete(folder, experiment.head_inputs(init)):
        return True
    if trained:
        made = f"{folder} was made with other options, and {trained} ingredients are fine-tuned from it"
        raise ValueError(f"{made}; give the options of before, or choose another run with name=...")
    return False


def is_reported(experiment: Experiment) -> bool:
    """Return whether the soups and the report exist and are made of all finished models."""
    files = experiment.files
    if not (manifests.manifest_of(files.soups) and manifests.manifest_of(files.results)):
        return False
    inputs = experiment.soup_inputs(experiment.ingredients.find().ingredients)
    if manifests.complete(files.soups, inputs) is None:
        return False
    return manifests.complete(files.results, experiment.report_inputs()) is not None
