"""One fine-tuned model (ingredient) a recipe, end to end: `modelsoups finetune`.

What an image looks like to a step is a function of (recipe seed, epoch, image), never of workers, order or time, so a
run that is killed and resumed ends bit-identical. Files of an ingredient: recipe.json, metrics.jsonl, checkpoint.pt
while it runs, then model.safetensors, and its manifest last; failed.json instead when the loss diverged.

Legend: N training images, B of a batch, C classes, H height, W width.
"""

from __future__ import annotations

import functools
import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from modelsoups import checkpoint, runs
from modelsoups.config import Config
from modelsoups.core import training, weights
from modelsoups.core.types import Ingredient, Recipe
from modelsoups.data.loader import train_batches
from modelsoups.data.shards import ShardSet, check_disjoint
from modelsoups.evaluate import normalise, open_set, shell, workers
from modelsoups.model import Classifier, state_of
from modelsoups.parallel import advance, run_tasks
from modelsoups.pool import initial_models, load_weights
from modelsoups.sweep import load_draw

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
    job = functools.partial(_finetune, cfg, recipes)
    ends = run_tasks(job, todo, workers(cfg), "finetune", lambda i: recipes[i].epochs * images, cfg.finetune.threads)
    failed = {index: reason for index, reason in ends if reason}
    print(f"finetune: {len(todo) - len(failed)} ingredients -> {cfg.run.root / 'ingredients'}")
    return failed


def _inputs(cfg: Config, recipe: Recipe) -> dict[str, Any]:
    """What an ingredient is made from."""
    inputs = {
        "recipe": asdict(recipe),
        "initialization": initial_models(cfg)["initialization"].sha256,
        "train": open_set(cfg.data.dir, cfg.data.train).sha256,
    }
    return dict(json.loads(json.dumps(inputs)))  # as it reads back from a file


def _ended(cfg: Config, index: int, recipe: Recipe) -> str | None:
    """COMPLETE, why an ingredient failed, or None; ValueError when it was made from something else."""
    folder = cfg.run.ingredient(index)
    failure = folder / "failed.json"
    manifest = runs.manifest_of(folder)
    end = manifest or (runs.read_json(failure) if failure.exists() else None)
    if end is None:
        return None
    inputs = _inputs(cfg, recipe)
    if changed := [key for key in inputs if end.get("inputs", {}).get(key) != inputs[key]]:
        raise ValueError(
            f"{folder} was made from another {changed[0]}; an ingredient is fixed once made: choose another name=..., "
            f"or delete {folder} to make it again"
        )
    (folder / "checkpoint.pt").unlink(missing_ok=True)  # of a run that was killed after its last word
    return COMPLETE if manifest else str(end["reason"])


def _finetune(cfg: Config, recipes: list[Recipe], index: int) -> str | None:
    """Fine-tune one ingredient into its folder; the reason if it diverged."""
    folder, recipe = cfg.run.ingredient(index), recipes[index]
    inputs = _inputs(cfg, recipe)
    for left_over in folder.glob(".*.tmp"):  # of a run that was killed while it wrote
        left_over.unlink()
    trainer = Trainer(cfg, recipe, folder, open_set(cfg.data.dir, cfg.data.train), runs.fingerprint(inputs))
    trainer.load()
    runs.write_json(folder / "recipe.json", asdict(recipe))
    diverged = trainer.train()
    if diverged:
        runs.write_json(folder / "failed.json", {**diverged, "inputs": inputs})
    else:
        _finish(trainer, inputs)
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return str(diverged["reason"]) if diverged else None


def _finish(trainer: Trainer, inputs: dict[str, Any]) -> None:
    """Write the weights of a trained ingredient, then its manifest."""
    state = state_of(trainer.model)
    path = trainer.folder / "model.safetensors"
    runs.save_weights(path, state)
    facts = {
        "sha256": weights.state_sha256(state),
        "steps": trainer.total,
        "images": trainer.total * trainer.recipe.batch_size,
        "loss": trainer.loss,
        "seconds": round(trainer.seconds, 1),
    }
    runs.finish(trainer.folder, inputs, [path], **facts)


class Trainer:
    """One run: AdamW on every parameter, cosine by the step, warm-up, clipping, mixup, label smoothing (J.2.1)."""

    def __init__(self, cfg: Config, recipe: Recipe, folder: Path, train: ShardSet, made_from: str) -> None:
        self.cfg, self.recipe, self.folder, self.train_set, self.made_from = cfg, recipe, folder, train, made_from
        self.per_epoch = len(train) // recipe.batch_size
        if self.per_epoch == 0:
            raise ValueError(f"recipe.batch_size={recipe.batch_size}: {train.folder} has only {len(train)} images")
        self.total = self.per_epoch * recipe.epochs
        self.model: Classifier = shell(cfg, len(train.classes))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
        self.step = 0
        self.seconds = 0.0
        self.loss = math.nan  # of the last step

    def load(self) -> None:
        """Start from checkpoint.pt if it is there and whole, else from the initial model; cut metrics.jsonl to it."""
        path = self.folder / "checkpoint.pt"
        state = checkpoint.load(path) if path.exists() else None
        if state and state["made_from"] != self.made_from:
            raise ValueError(
                f"{path} belongs to another recipe, initial model or training set; delete {self.folder} to begin "
                "anew, or choose another name=..."
            )
        if state:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = state["step"], state["seconds"]
        else:
            if path.exists():
                print(f"finetune: {path} is damaged; beginning this ingredient anew", flush=True)
            self._load_initial(initial_models(self.cfg)["initialization"])
        checkpoint.cut(self.folder / "metrics.jsonl", self.step)

    def _load_initial(self, initial: Ingredient) -> None:
        state = load_weights(initial)
        try:
            self.model.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(
                f"{initial.path} does not fit model={self.cfg.model.name} with {len(self.train_set.classes)} classes "
                f"of {self.train_set.folder}; run `modelsoups heads`"
            ) from error

    def train(self) -> dict[str, Any] | None:
        """Train to the end; where and why if the loss diverged."""
        advance(self.step * self.recipe.batch_size, resumed=True)
        model, every = self.model.train(), self.cfg.finetune
        side_by_side = 1 if self.cfg.ingredient is not None else workers(self.cfg)
        batches = train_batches(
            self.train_set, self.recipe, model.image_size, model.mean, first=self.step, side_by_side=side_by_side
        )
        clock = time.monotonic() - self.seconds
        for pixels_BCHW, labels_B in batches:
            loss = self._update(normalise(model, pixels_BCHW), labels_B.to(model.head.weight.device))
            self.step += 1
            self.seconds = time.monotonic() - clock
            advance(self.recipe.batch_size)
            at_log = self.step % every.log_every == 0 or self.step == self.total
            at_save = self.step % every.checkpoint_every == 0 and self.step < self.total
            if at_log or at_save or loss.device.type == "cpu":  # reading it makes a GPU wait
                self.loss = float(loss)
                if not math.isfinite(self.loss):
                    return self._diverged(f"the loss is {self.loss} at step {self.step}")
            if at_log:
                self._log()
            if at_save:
                self._save()
        if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
            return self._diverged(f"weights are not finite after step {self.step}")
        return None

    def _update(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        recipe = self.recipe
        torch.manual_seed(training.seeded(recipe.seed, "step", self.step).initial_seed())  # for models with dropout
        targets_BC = training.soft_targets(labels_B, len(self.train_set.classes), recipe.label_smoothing)
        if recipe.mixup > 0:
            lam = training.mixup_lambda(recipe.mixup, recipe.seed, self.step)
            images_BCHW, targets_BC = training.mixup(images_BCHW, targets_BC, lam)
        factor = training.lr_factor(self.step, self.total, recipe.warmup_steps, recipe.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr * factor
        loss = F.cross_entropy(self.model(images_BCHW), targets_BC)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.optimizer.step()
        return loss.detach()

    def _diverged(self, reason: str) -> dict[str, Any]:
        return {"reason": reason, "step": self.step, "loss": str(self.loss)}  # JSON has no NaN

    def _log(self) -> None:
        images = self.step * self.recipe.batch_size
        row = {
            "step": self.step,
            "epoch": self.step / self.per_epoch,
            "loss": self.loss,
            "lr": self.optimizer.param_groups[0]["lr"],
            "timing": {"seconds": round(self.seconds, 3), "images_per_second": round(images / self.seconds, 1)},
        }
        checkpoint.log(self.folder / "metrics.jsonl", row)

    def _save(self) -> None:
        checkpoint.sync(self.folder / "metrics.jsonl")
        state = {
            "made_from": self.made_from,
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        checkpoint.save(self.folder / "checkpoint.pt", state)
