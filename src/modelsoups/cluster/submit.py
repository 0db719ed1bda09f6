"""Submits all jobs of an experiment to a SLURM cluster: `modelsoups submit cluster=mine`.

Jobs that are complete or in the queue are not submitted again, so the command can be repeated.
Soups use the models that have finished (soup.minimum or more). Scripts and the jobs' output are in
runs/<name>/slurm/. With submit.dry_run=true the scripts are printed, not submitted.
"""

from modelsoups.cluster import slurm
from modelsoups.cluster.scripts import CHAIN, OF_POOLS, Piece, script
from modelsoups.disk import manifests, paths, storage
from modelsoups.disk.paths import Run
from modelsoups.experiment.draw import initial_of
from modelsoups.experiment.experiment import Experiment


def run(experiment: Experiment) -> bool:
    """Submit the jobs that are neither complete nor queued; after an error, cancel the new jobs."""
    config, files = experiment.config, experiment.files
    dry, own = config.submit.dry_run, experiment.has_models
    if own and not dry:
        experiment.draw.write()
    recipes = experiment.draw.planned() if own else []
    for recipe in recipes:
        recipe.accumulation(config.cluster.nodes * config.cluster.ranks, config.finetune.at_once)
    todo, failed = unfinished(files, len(recipes))
    queued = [] if dry else slurm.queue(files.root)
    if own and not dry:  # from now on `Draw.recipes` rejects a changed draw: jobs may start days later
        storage.write_json(files.draw_manifest, {"sha256": storage.file_sha256(files.draw)})
    done = len(recipes) - len(todo) - len(failed)
    counts = f"{done} complete, {len(failed)} failed, {len(todo)} to train"
    print(f"submit: {len(recipes)} ingredients: {counts}" if own else "submit: the models are those of analyse.pools")
    for index in failed:
        folder = files.ingredient(index)
        print(f"submit: ingredient {index:03d} failed and will not be in the soup: {folder}")
    if not (dry or todo or queued) and is_reported(experiment):
        page = (files.results if own else files.analyses) / "index.html"
        print(f"submit: everything is complete; the report is {page}")
        return False
    _submit_chain(experiment, todo, queued)
    if not dry:
        print(f"submit: scripts and output are in {files.slurm}; `modelsoups status` shows the progress")
    return False


def unfinished(run: Run, count: int) -> tuple[list[int], list[int]]:
    """Return two lists of model numbers (from 0 to count - 1): still to be trained, and failed."""
    rest = [i for i in range(count) if manifests.manifest_of(run.ingredient(i)) is None]
    failed = [i for i in rest if (run.ingredient(i) / paths.FAILED).exists()]
    return sorted(set(rest) - set(failed)), failed


def _submit_chain(experiment: Experiment, todo: list[int], queued: list[slurm.Job]) -> None:
    """Submit the jobs in order, each dependent on the previous; on an error, cancel them again."""
    tasks = {job.index for job in queued if job.name == "sweep"}
    indices = sorted(set(todo) - tasks)
    dependencies: list[str] = []  # of the next piece
    new: list[int] = []
    try:
        for piece in CHAIN if experiment.has_models else OF_POOLS:
            live = sorted({job.id for job in queued if job.name == piece.name})
            ids = list(map(str, live))
            if _is_needed(experiment, piece, indices, bool(live), bool(new)):
                text = script(experiment.config, piece, indices)
                if ids and piece.name != "sweep":
                    dependencies.append(f"afterany:{':'.join(ids)}")
                if experiment.config.submit.dry_run:
                    options = " ".join(["sbatch", *slurm.dependency_options(dependencies)])
                    print(f"### {piece.name}: {piece.title}\n### {options} {piece.name}.sbatch\n{text}")
                    ids.append(f"<{piece.name}>")
                else:
                    new.append(_submit(experiment.files, piece, text, indices, dependencies))
                    ids.append(str(new[-1]))
            elif live:
                print(f"  {', '.join(ids):>8}  {piece.name:<9}is already in the queue")
            dependencies = [f"{piece.after}:{':'.join(ids)}"] if ids else dependencies
    except BaseException:
        slurm.cancel(new)
        raise


def _is_needed(experiment: Experiment, piece: Piece, indices: list[int], live: bool, earlier: bool) -> bool:
    """Return whether to submit a job. live: it is in the queue; earlier: an earlier job is new."""
    if piece.name == "sweep":
        return bool(indices)
    if piece.name == "prepare":
        return not live and not is_prepared(experiment)
    return earlier or not live


def is_prepared(experiment: Experiment) -> bool:
    """Return whether the data sets and the initial models have been completely written."""
    data, heads = experiment.config.data, experiment.config.heads
    folders = list(map(experiment.sets.folder, [data.train, data.holdout, data.test, *data.shifts]))
    names = {heads.init, *(initial_of(recipe, heads) for recipe in experiment.draw.planned())}
    return all(map(manifests.manifest_of, [*folders, *map(experiment.files.head, names)]))


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


def _submit(run: Run, piece: Piece, text: str, indices: list[int], dependencies: list[str]) -> int:
    title = piece.title
    if piece.name == "sweep":
        if indices[-1] >= (size := slurm.max_array_size()):
            raise ValueError(
                f"ingredient {indices[-1]} is beyond this cluster's MaxArraySize={size}, which "
                f"limits job arrays; set sweep.count={size} or less, or ask for a larger "
                "MaxArraySize"
            )
        title += f": tasks {slurm.ranges(indices)}"
    path = run.slurm / f"{piece.name}.sbatch"
    storage.write_text(path, text)
    job = slurm.submit(path, dependencies)
    after = f", after {' and '.join(dependencies)}" if dependencies else ""
    print(f"  {job:>8}  {piece.name:<9}{title}{after}")
    return job
