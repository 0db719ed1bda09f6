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
from collections.abc import Iterator
from pathlib import Path

from modelsoups.cluster import environment, slurm
from modelsoups.cluster.scripts import CHAIN, OF_POOLS, Piece, script
from modelsoups.disk import lock, manifests, paths, storage
from modelsoups.disk.paths import Run
from modelsoups.experiment.draw import initial_of
from modelsoups.experiment.experiment import Experiment
from modelsoups.recipes.recipe import Recipe

PREPARING = ("prepare", "heads")  # jobs that make what all ingredients begin with


def run(experiment: Experiment) -> bool:
    """Submit the jobs that are neither complete nor queued; after an error, cancel the new jobs."""
    config, files = experiment.config, experiment.files
    for note in environment.notes(os.environ, config.cluster):
        _say(f"submit: {note}")
    recipes = experiment.draw.extended() if experiment.has_models else []
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
    files, dry, own = experiment.files, experiment.config.submit.dry_run, experiment.has_models
    todo, failed = unfinished(files, len(recipes))
    done = len(recipes) - len(todo) - len(failed)
    counts = f"{done} complete, {len(failed)} failed, {len(todo)} to train"
    _say(f"submit: {len(recipes)} ingredients: {counts}" if own else "submit: the models are those of analyse.pools")
    for index in failed:
        folder = files.ingredient(index)
        _say(f"submit: ingredient {index:03d} failed and will not be in the soup: {folder}")
    if not (dry or todo or queued) and is_reported(experiment):
        page = (files.results if own else files.analyses) / "index.html"
        _say(f"submit: everything is complete; the report is {page}")
        return
    chain = Chain(experiment, recipes, todo, queued)
    if dry:
        chain.submit()
        return
    with _draw_fixed(experiment) if own else contextlib.nullcontext():
        chain.submit()
    progress = "; `modelsoups status` shows the progress" if own else ""
    _say(f"submit: scripts and output are in {files.slurm}{progress}")


@contextlib.contextmanager
def _draw_fixed(experiment: Experiment) -> Iterator[None]:
    """Write the draw and fix it after the with block; after an error in the block, restore it as it was."""
    files = experiment.files
    before = files.draw.read_bytes() if files.draw.exists() else None
    experiment.draw.write()
    try:
        yield
    except BaseException:
        if before is None:  # the draw is free again
            files.draw.unlink()
        else:
            storage.write_text(files.draw, before.decode())
        raise
    # From now on `Draw.recipes` rejects a changed draw: jobs may start days later.
    storage.write_json(files.draw_manifest, {"sha256": storage.file_sha256(files.draw)})


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

    def __init__(self, experiment: Experiment, recipes: list[Recipe], todo: list[int], queued: list[slurm.Job]) -> None:
        """recipes: those of all ingredients; todo: the numbers of those to train."""
        self.experiment, self.queued, self.dry = experiment, queued, experiment.config.submit.dry_run
        self.missing = unprepared(experiment, recipes)
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
        for piece in CHAIN if self.experiment.has_models else OF_POOLS:
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
        needed = piece.name in self.missing or piece.name not in PREPARING
        return [(piece, [])] if needed and (self.new or not live) else []

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
                    way_out = f"to apply them, run `scancel {' '.join(live)}` and submit again"
                    _say(f"submit: changes have no effect on the queued {piece.name} ({changed}); {way_out}")


def _changed(path: Path, text: str) -> str:
    """Return the names of the options and variables that are other in `text` than in the script `path`."""
    before, now = path.read_text(encoding="utf-8").splitlines(), text.splitlines()
    names = [re.sub(r"^#SBATCH --|[= ].*", "", line) for line in {*before} ^ {*now}]
    return ", ".join(sorted({name for name in names if name not in ("array", "")}))


def unprepared(experiment: Experiment, recipes: list[Recipe]) -> tuple[str, ...]:
    """Return which of PREPARING have to run: what they make is not complete, or made with other options.

    recipes: those of all ingredients, [] for those that `heads` would read. Raises ValueError if data sets were
    prepared with other options, and if an initial model was while ingredients have been fine-tuned from them.
    """
    config, files, sets = experiment.config, experiment.files, experiment.sets
    data, heads = config.data, config.heads
    current = [sets.is_current(name, sources=False) for name in (data.train, data.holdout, data.test, *data.shifts)]
    names = {heads.init, *(initial_of(recipe, heads) for recipe in recipes or experiment.draw.planned())}
    if not all(current):
        return PREPARING
    made = [name for name in sorted(names) if manifests.manifest_of(files.head(name))]
    stale = [name for name in made if not manifests.complete(files.head(name), experiment.head_inputs(name))]
    for name in stale:
        starts = [i for i, recipe in enumerate(recipes) if initial_of(recipe, heads) == name]
        if trained := sum(manifests.manifest_of(files.ingredient(i)) is not None for i in starts):
            made_with = (
                f"{files.head(name)} was made with other options, and {trained} ingredients are fine-tuned from it"
            )
            raise ValueError(f"{made_with}; give the options of before, or choose another run with name=...")
    return PREPARING[1:] if stale or len(made) < len(names) else ()


def is_reported(experiment: Experiment) -> bool:
    """Return whether soups and report exist and are made of all finished models (with pool=none: the analyses)."""
    files = experiment.files
    if not experiment.has_models:
        return manifests.manifest_of(files.analyses) is not None
    if not (manifests.manifest_of(files.soups) and manifests.manifest_of(files.results)):
        return False
    inputs = experiment.soup_inputs(experiment.ingredients.find().ingredients)
    if manifests.complete(files.soups, inputs) is None:
        return False
    return manifests.complete(files.results, experiment.report_inputs()) is not None
