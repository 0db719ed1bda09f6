"""One fine-tuned model (ingredient) a recipe, end to end: `modelsoups finetune`.

What an image looks like to a step is a function of (recipe seed, epoch, image), never of workers, order or time, so a
run that is killed and resumed ends bit-identical. Files of an ingredient: recipe.json, metrics.jsonl, a lock and
checkpoints while it runs, then model.safetensors, and its manifest last; failed.json instead when the loss diverged.
Under torchrun, `modelsoups finetune ingredient=3` trains one ingredient on all ranks, with the recipe's batch.
"""

from __future__ import annotations

import contextlib
import functools
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from modelsoups.config.schema import Config
from modelsoups.data.shards import check_disjoint
from modelsoups.disk import manifests, storage
from modelsoups.disk.lock import Lock, held
from modelsoups.experiment.draw import load_draw
from modelsoups.experiment.ingredients import initial_models
from modelsoups.experiment.sets import open_set
from modelsoups.models.classifier import state_of
from modelsoups.recipes.recipe import Recipe
from modelsoups.train import distillation, resume
from modelsoups.train.ranks import ALONE, Ranks, joined, mark_saved
from modelsoups.weights import state_dicts
from modelsoups.workers import processes
from modelsoups.workers.processes import run_tasks, worker_count

if TYPE_CHECKING:
    from modelsoups.train.trainer import Trainer

COMPLETE = "complete"


def run(cfg: Config) -> bool:
    """Fine-tune cfg.ingredient, or every ingredient that is neither complete nor failed, side by side.

    An ingredient that diverged is named, and does not stop the others; ValueError if it was asked for by number.
    """
    recipes = load_draw(cfg)
    if cfg.ingredient is not None and cfg.ingredient >= len(recipes):
        raise ValueError(f"ingredient={cfg.ingredient}: {cfg.run.draw} has recipes 0 to {len(recipes) - 1}")
    wanted = range(len(recipes)) if cfg.ingredient is None else [cfg.ingredient]
    ended = {i: _ended(cfg, i, recipes[i]) for i in wanted}
    todo = [i for i in wanted if ended[i] is None]
    failed = {i: reason for i, reason in ended.items() if reason not in (None, COMPLETE)}
    if len(todo) < len(wanted):
        done = len(wanted) - len(todo)
        print(f"finetune: {'' if todo else 'complete, '}{done} of {len(wanted)} ingredients are done already")
    failed |= _finetune_all(cfg, recipes, todo)
    for index, reason in sorted(failed.items()):
        message = f"ingredient {index:03d}: {reason}"
        if cfg.ingredient is not None:
            raise ValueError(f"{message}; recipes are fixed: delete {cfg.run.ingredient(index)} to try it again")
        print(f"finetune: {message}; the soup goes without it")
    return bool(todo)


def _finetune_all(cfg: Config, recipes: list[Recipe], todo: list[int]) -> dict[int, str]:
    """Fine-tune these ingredients; why those that diverged did."""
    if not todo:
        return {}
    train = open_set(cfg.data.dir, cfg.data.train)
    check_disjoint(train, open_set(cfg.data.dir, cfg.data.holdout))
    images = len(train)
    for index in todo:
        for teacher in recipes[index].teachers:
            distillation.ingredient(teacher)  # there, or a ValueError before anything is trained
    if cfg.ingredient is not None:
        reason = _alone(cfg, recipes, cfg.ingredient, images)
        return {cfg.ingredient: reason} if reason else {}
    job = functools.partial(_locked, cfg, recipes, ALONE)
    ends = run_tasks(
        job,
        todo,
        worker_count(cfg.finetune.parallel),
        "finetune",
        lambda i: recipes[i].epochs * images,
    )
    failed = {index: reason for index, reason in ends if reason}
    print(f"finetune: {len(todo) - len(failed)} ingredients -> {cfg.run.root / 'ingredients'}")
    return failed


def _alone(cfg: Config, recipes: list[Recipe], index: int, images: int) -> str | None:
    """Fine-tune one ingredient in this process, together with the other ranks if torchrun started it."""
    torch.set_num_threads(cfg.finetune.threads)
    with joined() as ranks:
        shown = processes.watched(f"finetune: {index:03d}", recipes[index].epochs * images)
        with shown if ranks.first else contextlib.nullcontext():
            reason = _locked(cfg, recipes, ranks, index)
        if ranks.first and not reason:
            print(f"finetune: ingredient {index:03d} -> {cfg.run.ingredient(index)}")
    return reason


def _locked(cfg: Config, recipes: list[Recipe], ranks: Ranks, index: int) -> str | None:
    """Fine-tune one ingredient while its folder is locked; see _finetune. Held (a ValueError) when another does."""
    torch.set_num_threads(cfg.finetune.threads)
    if not ranks.first:
        return _finetune(cfg, recipes, index, ranks)
    with held(cfg.run.ingredient(index)) as lock:
        return _finetune(cfg, recipes, index, ranks, lock)


def _inputs(cfg: Config, recipe: Recipe) -> dict[str, Any]:
    """What an ingredient is made from."""
    inputs = {
        "recipe": asdict(recipe),
        "initialization": initial_models(cfg)["initialization"].sha256,
        "train": open_set(cfg.data.dir, cfg.data.train).sha256,
    }
    if cfg.finetune.decode != "pil":
        inputs["decode"] = cfg.finetune.decode
    return dict(json.loads(json.dumps(inputs)))  # as it reads back from a file


def _ended(cfg: Config, index: int, recipe: Recipe) -> str | None:
    """COMPLETE, why an ingredient failed, or None; ValueError when it was made from something else."""
    folder = cfg.run.ingredient(index)
    failure = folder / "failed.json"
    manifest = manifests.manifest_of(folder)
    end = manifest or (storage.read_json(failure) if failure.exists() else None)
    if end is None:
        return None
    inputs = _inputs(cfg, recipe)
    if changed := [key for key in inputs if end.get("inputs", {}).get(key) != inputs[key]]:
        raise ValueError(
            f"{folder} was made from another {changed[0]}; an ingredient is fixed once made: choose another name=..., "
            f"or delete {folder} to make it again"
        )
    resume.remove(folder)  # of a run that was killed after its last word
    return COMPLETE if manifest else str(end["reason"])


def _finetune(
    cfg: Config, recipes: list[Recipe], index: int, ranks: Ranks = ALONE, lock: Lock | None = None
) -> str | None:
    """Fine-tune one ingredient into its folder; the reason if it diverged. Rank 0 writes, and holds the lock."""
    from modelsoups.data.loader import deaths_named  # timm and torchvision: seconds that a task with nothing to do,
    from modelsoups.train.trainer import Trainer  # or in a folder that is in use, need not take

    folder, recipe = cfg.run.ingredient(index), recipes[index]
    inputs = _inputs(cfg, recipe)
    if recipe.teachers:
        inputs["teachers"] = [distillation.ingredient(teacher).sha256 for teacher in recipe.teachers]
    if ranks.first:
        for left_over in folder.glob(".*.tmp"):  # of a run that was killed while it wrote
            left_over.unlink()
    train = open_set(cfg.data.dir, cfg.data.train)
    trainer = Trainer(cfg, recipe, folder, train, storage.fingerprint(inputs), ranks, lock)
    trainer.load()
    if ranks.first:
        storage.write_json(folder / "recipe.json", asdict(recipe))
    with deaths_named():
        diverged = trainer.train()
    if ranks.first:
        trainer.check_lock()
        if diverged:
            storage.write_json(folder / "failed.json", {**diverged, "inputs": inputs})
            mark_saved(False)  # another start would not help
        else:
            _finish(trainer, inputs)
        resume.remove(folder)
    return str(diverged["reason"]) if diverged else None


def _finish(trainer: Trainer, inputs: dict[str, Any]) -> None:
    """Write the weights of a trained ingredient, then its manifest."""
    state = state_of(trainer.model)
    path = trainer.folder / "model.safetensors"
    storage.save_weights(path, state)
    averages = {name: a.state for name, a in trainer.averages.items() if a.count}
    paths = {name: trainer.folder / f"{name}.safetensors" for name in averages}
    for name, average in averages.items():
        storage.save_weights(paths[name], {k: v.detach().cpu().contiguous() for k, v in average.items()})
    facts = {
        "sha256": state_dicts.state_sha256(state),
        "averages": {name: state_dicts.state_sha256(average) for name, average in averages.items()},
        "steps": trainer.total,
        "images": trainer.total * trainer.recipe.batch_size,
        "loss": trainer.loss,
        "seconds": round(trainer.seconds, 1),
        "layouts": trainer.layouts,
    }
    if trainer.skipped.keys:
        facts["skipped"] = trainer.skipped.keys
    manifests.finish(trainer.folder, inputs, [path, *paths.values()], **facts)
