"""Fine-tunes one model (an ingredient) with each recipe in draw.jsonl: `modelsoups finetune`.

The augmentation of an image depends only on the recipe's seed, the epoch and the image, so training
that is killed and resumed gives bit-identical weights. An ingredient's folder contains recipe.json,
metrics.jsonl and, during training, a lock and checkpoints; afterwards model.safetensors and a
manifest or, if the loss diverged, failed.json. Under torchrun, `modelsoups finetune ingredient=3`
trains one ingredient in all processes together; the recipe's batch size is the total of all
processes.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from modelsoups.checkpoints.states import state_sha256
from modelsoups.config import registry
from modelsoups.data.shards import check_disjoint, check_test
from modelsoups.data.shared_images import shared_file
from modelsoups.data.text.sets import TextSet
from modelsoups.disk import manifests, paths, storage
from modelsoups.disk.lock import Lock, held
from modelsoups.experiment.draw import initial_of
from modelsoups.experiment.experiment import Experiment
from modelsoups.models.classifier import state_of
from modelsoups.recipes.recipe import Recipe, check_select
from modelsoups.train import distillation, resume
from modelsoups.train.averages import MODEL
from modelsoups.train.ranks import ALONE, Ranks, joined, mark_saved
from modelsoups.workers.processes import Size, run_tasks, watched, workers_kept

if TYPE_CHECKING:
    from modelsoups.train.trainer import Trainer

COMPLETE = "complete"


def run(experiment: Experiment) -> bool:
    """Fine-tune all unfinished ingredients, or only the one that the key `ingredient` names.

    Return whether there were any. Raises ValueError if `ingredient` names one whose loss diverged.
    """
    recipes, files = experiment.draw.recipes(), experiment.files
    only = experiment.config.ingredient
    if only is not None and only >= len(recipes):
        raise ValueError(f"ingredient={only}: {files.draw} has only recipes 0 to {len(recipes) - 1}")
    wanted = range(len(recipes)) if only is None else [only]
    ended = {index: _ended(experiment, index, recipes[index]) for index in wanted}
    todo = [index for index in wanted if ended[index] is None]
    failed = {index: reason for index, reason in ended.items() if reason not in (None, COMPLETE)}
    if done := len(wanted) - len(todo):
        print(f"finetune: {'' if todo else 'complete, '}{done} of {len(wanted)} ingredients are done already")
    if todo:
        _check_made_with(experiment, recipes)
        failed |= _fine_tune_all(experiment, recipes, todo)
    for index, reason in sorted(failed.items()):
        message = f"ingredient {index:03d}: {reason}"
        if only is not None:
            raise ValueError(f"{message}; move {files.ingredient(index)} away to try it again")
        print(f"finetune: {message}; soups are chosen without it")
    return bool(todo)


def _fine_tune_all(experiment: Experiment, recipes: list[Recipe], todo: list[int]) -> dict[int, str]:
    """Fine-tune the ingredients `todo`. Return {index: reason} for each one that diverged."""
    sets, test = experiment.sets, experiment.config.data.test
    counted = isinstance(sets.holdout, TextSet) and not sets.holdout.by_content  # in notes
    if not counted:
        check_disjoint(sets.train, sets.holdout)
    if sets.is_prepared(test):
        check_test(sets[test], (sets.train, sets.holdout))
    for index in todo:
        check_select(recipes[index].select, experiment.config.finetune.evaluate_every)
        for teacher in recipes[index].teachers:
            distillation.teacher(teacher)  # a missing one is an error before any training
    if experiment.config.ingredient is not None:
        reason = _fine_tune_here(experiment, recipes[todo[0]], todo[0])
        return {todo[0]: reason} if reason else {}
    _prepare_holdout(experiment)
    examples = len(sets.train)
    size = Size(lambda index: _examples(recipes[index], examples), experiment.unit)
    failed: dict[int, str] = {}
    with workers_kept(), _shared(experiment, recipes, todo) as shared:
        for group in _groups(todo, size, experiment.workers) if shared else [todo]:
            ends = run_tasks(_task, group, experiment.workers, "finetune", size, (experiment, shared))
            failed |= {index: reason for index, reason in ends if reason}
    print(f"finetune: wrote {len(todo) - len(failed)} ingredients to {experiment.files.ingredients}")
    return failed


def _check_made_with(experiment: Experiment, recipes: list[Recipe]) -> None:
    """Raise ValueError if recipes, data sets or initial models were made with other options than now hold.

    Jobs of a cluster do not compare the data sets: `submit` has, and thousands would list their files.
    """
    config, sets = experiment.config, experiment.sets
    _check_drawn(experiment, recipes)
    for name in (config.data.train, config.data.holdout) if config.ingredient is None else ():
        sets.is_current(name, sources=False)
    experiment.check_head()
    if experiment.imported is not None:
        return
    for init in sorted({config.heads.init, *(initial_of(recipe, config.heads) for recipe in recipes)}):
        folder = experiment.files.head(init)
        made = (manifests.manifest_of(folder) or {}).get("inputs", {})
        if changed := manifests.differences(made, experiment.head_inputs(init)):
            way_out = "`modelsoups heads` makes it again"
            raise ValueError(f"{folder} was made with other options than now: {', '.join(changed)}; {way_out}")


def _check_drawn(experiment: Experiment, recipes: list[Recipe]) -> None:
    """Raise ValueError if an override sets a hyperparameter to another value than the draw has."""
    config = experiment.config
    given = {override.lstrip("+").partition("=")[0] for override in config.overrides}
    for key, value in config.recipe.items():
        now = tuple(value) if isinstance(value, list) else value  # as `Recipe` has it
        drawn = {str(kept) for recipe in recipes if (kept := getattr(recipe, key)) != now}
        if drawn and f"recipe.{key}" in given:
            found = f"{experiment.files.draw} has {', '.join(sorted(drawn))}"
            way_out = "recipes are fixed once drawn; for others, choose another run with name=..."
            raise ValueError(f"recipe.{key}={value}, but {found}; {way_out}")


@contextlib.contextmanager
def _shared(experiment: Experiment, recipes: list[Recipe], todo: list[int]) -> Iterator[Path | None]:
    """Yield the file of decoded images that runs share, or None; ValueError if they cannot (finetune.share)."""
    given = experiment.config.finetune
    if not given.share:
        yield None
        return
    from modelsoups.data.loader import loader_processes  # loads timm

    orders = {recipes[index].order_seed for index in todo}
    if len(orders) > 1 or None in orders:
        said = f"finetune.share=true, but the recipes in {experiment.files.draw} have no common order_seed"
        raise ValueError(f"{said}; draw them with finetune.share=true too, in another run with name=...")
    if given.decode == "gpu":
        raise ValueError("finetune.share=true shares what CPUs decode; set finetune.decode=turbo or pil")
    ahead = 2 * loader_processes(experiment.sets.train, experiment.workers) + 1  # batches
    with shared_file(2 * ahead * max(recipes[index].batch_size for index in todo)) as path:
        yield path


def _groups(todo: list[int], size: Size, workers: int) -> list[list[int]]:
    """Divide ingredients into groups that train side by side: the longest ones together, and so on."""
    ordered = sorted(todo, key=size.of, reverse=True)
    return [ordered[start : start + workers] for start in range(0, len(ordered), workers)]


def _task(shared: tuple[Experiment, Path | None], index: int) -> str | None:
    experiment, images = shared
    return _fine_tune_locked(experiment, experiment.draw.recipes()[index], index, ALONE, images)


def _examples(recipe: Recipe, count: int) -> int:
    """Return how many examples, also repeated ones, a recipe trains on if the training set has `count`."""
    return max(1, recipe.total_steps(count) * recipe.batch_size)


def _prepare_holdout(experiment: Experiment) -> None:
    """Decode a large hold-out once, if models are evaluated on it during training."""
    if experiment.config.finetune.evaluate_every:
        experiment.prepare_inputs([experiment.config.data.holdout])


def _fine_tune_here(experiment: Experiment, recipe: Recipe, index: int) -> str | None:
    """Fine-tune one ingredient in this process (under torchrun, a rank); return why it diverged."""
    with joined() as ranks:
        if ranks.first:
            _prepare_holdout(experiment)
        examples = _examples(recipe, len(experiment.sets.train))
        shown = watched(f"finetune: {index:03d}", examples, experiment.unit)
        with shown if ranks.first else contextlib.nullcontext():
            reason = _fine_tune_locked(experiment, recipe, index, ranks)
        if ranks.first and not reason:
            print(f"finetune: wrote ingredient {index:03d} to {experiment.files.ingredient(index)}")
    return reason


def _fine_tune_locked(
    experiment: Experiment, recipe: Recipe, index: int, ranks: Ranks, shared: Path | None = None
) -> str | None:
    """Lock the ingredient's folder and fine-tune; ValueError if another process has the lock."""
    torch.set_num_threads(experiment.config.finetune.threads)
    if not ranks.first:
        return fine_tune(experiment, recipe, index, ranks)
    with held(experiment.files.ingredient(index)) as lock:
        return fine_tune(experiment, recipe, index, ranks, lock, shared)


def _inputs(experiment: Experiment, recipe: Recipe) -> dict[str, Any]:
    """Return what an ingredient depends on (recipe, initial weights, data), for manifest.json."""
    inputs = {
        "recipe": recipe.to_json(),
        "initialization": experiment.ingredients.start(recipe).sha256,
        "train": experiment.sets.train.sha256,
    }
    if experiment.config.finetune.decode != "pil":
        inputs["decode"] = experiment.config.finetune.decode
    if recipe.select == "best":
        every, seen = experiment.config.finetune.evaluate_every, experiment.task.view
        inputs["selection"] = {"every": every, "holdout": experiment.sets.holdout.sha256, "view": seen}
    if own := registry.own_code([experiment.config.task]):
        inputs["own code"] = own
    return dict(json.loads(json.dumps(inputs)))


def _ended(experiment: Experiment, index: int, recipe: Recipe) -> str | None:
    """Return COMPLETE, why it diverged, or None if unfinished; ValueError if its recipe changed."""
    folder = experiment.files.ingredient(index)
    failure = folder / paths.FAILED
    manifest = manifests.manifest_of(folder)
    end = manifest or (storage.read_json(failure) if failure.exists() else None)
    if end is None:
        return None
    for key, value in _inputs(experiment, recipe).items():
        if end.get("inputs", {}).get(key) != value:
            raise ValueError(
                f"{folder} was trained with a different {key}; choose another run with name=..., "
                f"or move {folder} away to train it again"
            )
    resume.remove(folder)  # checkpoints remain if the process was killed right after training
    return COMPLETE if manifest else str(end["reason"])


def fine_tune(
    experiment: Experiment,
    recipe: Recipe,
    index: int,
    ranks: Ranks = ALONE,
    lock: Lock | None = None,
    shared: Path | None = None,
) -> str | None:
    """Fine-tune the initial model with a recipe. Return why the loss diverged, or None.

    shared: the file of decoded images that runs share (finetune.share). Rank 0 writes the folder of
    ingredient `index`, after checking that it still has the `lock`.
    """
    from modelsoups.train.trainer import Trainer, Workspace  # loads timm: 2 s

    folder, inputs, config = experiment.files.ingredient(index), _inputs(experiment, recipe), experiment.config
    if recipe.teachers:
        inputs["teachers"] = [distillation.teacher(name).sha256 for name in recipe.teachers]
    if ranks.first:
        for left_over in folder.glob(".*.tmp"):  # of a process that was killed during a write
            left_over.unlink()
    train = experiment.sets.train
    side_by_side = experiment.workers if config.ingredient is None else ranks.here
    holdout = experiment.sets.holdout if config.finetune.evaluate_every else None
    workspace = Workspace(folder, storage.fingerprint(inputs), ranks, lock, side_by_side, shared, holdout)
    model = experiment.classifier(len(train.classes))
    trainer = Trainer(experiment.task, recipe, config.finetune, model, train, workspace)
    trainer.load(experiment.ingredients.start(recipe))
    if ranks.first:
        storage.write_json(folder / paths.RECIPE, recipe.to_json())
    diverged = trainer.train()
    if ranks.first:
        workspace.check_lock()
        if diverged:
            storage.write_json(folder / paths.FAILED, {**diverged, "inputs": inputs})
        else:
            _write(folder, trainer, inputs)
        mark_saved(False)  # a restart would not help
        resume.remove(folder)
    return str(diverged["reason"]) if diverged else None


def _write(folder: Path, trainer: "Trainer", inputs: dict[str, Any]) -> None:
    """Write the trained weights, their EMA and SWA averages if any, and finally manifest.json.

    The weights are those of the last step or, with recipe.select=best, of the best one on the hold-out.
    """
    chosen, files = trainer.evaluations.chosen, [folder / paths.MODEL]
    state = chosen(MODEL, state_of(trainer.model))
    storage.save_weights(files[0], state)
    averages = {name: chosen(name, average.state) for name, average in trainer.averages.items() if average.count}
    for name, average in averages.items():
        files.append(folder / f"{name}.safetensors")
        storage.save_weights(files[-1], {key: t.detach().cpu().contiguous() for key, t in average.items()})
    facts = {
        "sha256": state_sha256(state),
        "averages": {name: state_sha256(average) for name, average in averages.items()},
        "steps": trainer.total,
        "images": trainer.total * trainer.recipe.batch_size,
        "loss": trainer.loss,
        "seconds": round(trainer.seconds, 1),
        "layouts": trainer.layouts,
    }
    if trainer.task.unit != "images":
        facts["unit"] = trainer.task.unit  # the name of what "images" counts
    if selected := trainer.evaluations.facts():
        facts["selected"] = selected
    if trainer.skipped.keys:
        facts["skipped"] = trainer.skipped.keys
    if len(trainer.codes) > 1:
        facts["codes"] = trainer.codes  # which the run was resumed with, in order
    manifests.finish(folder, inputs, files, **facts)
