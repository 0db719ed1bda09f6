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
import os
import pickle
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from modelsoups import runs
from modelsoups.config import Config
from modelsoups.core import training, weights
from modelsoups.core.types import Recipe
from modelsoups.data.shards import ShardSet
from modelsoups.data.transforms import seed_sample, to_uint8, train_crop
from modelsoups.evaluate import normalise, open_set, shell, workers
from modelsoups.model import Classifier
from modelsoups.parallel import advance, run_tasks
from modelsoups.pool import initial_models
from modelsoups.sweep import load_draw

KEEP_DECODED = 64 * 2**20  # bytes of shards; decoded they are about ten times as large


def run(cfg: Config) -> bool:
    """Fine-tune cfg.ingredient, or every ingredient that is neither complete nor failed, side by side."""
    recipes = load_draw(cfg)
    if cfg.ingredient is not None and cfg.ingredient >= len(recipes):
        raise ValueError(f"ingredient={cfg.ingredient}: {cfg.run.draw} has recipes 0 to {len(recipes) - 1}")
    wanted = range(len(recipes)) if cfg.ingredient is None else [cfg.ingredient]
    todo = [i for i in wanted if not _ended(cfg, i, recipes[i])]
    done = len(wanted) - len(todo)
    if done:
        print(f"finetune: {'' if todo else 'complete, '}{done} of {len(wanted)} ingredients are done already")
    images = len(open_set(cfg.data.dir, cfg.data.train)) if todo else 0
    job = functools.partial(_finetune, cfg, recipes)
    failures = [
        f"ingredient {index:03d}: {reason}"
        for index, reason in run_tasks(
            job, todo, workers(cfg), "finetune", lambda i: recipes[i].epochs * images, cfg.finetune.threads
        )
        if reason
    ]
    if todo:
        print(f"finetune: {len(todo) - len(failures)} ingredients -> {cfg.run.root / 'ingredients'}")
    if cfg.ingredient is not None and failures:
        raise ValueError(failures[0])
    for failure in failures:
        print(f"finetune: {failure}; the soup goes without it")
    return bool(todo)


def _inputs(cfg: Config, recipe: Recipe) -> dict[str, Any]:
    """What a finished ingredient was made from."""
    return {
        "recipe": asdict(recipe),
        "initialization": initial_models(cfg)["initialization"].sha256,
        "train": open_set(cfg.data.dir, cfg.data.train).sha256,
    }


def _ended(cfg: Config, index: int, recipe: Recipe) -> bool:
    """Whether an ingredient is complete or has failed; ValueError when it was made from something else."""
    folder = cfg.run.ingredient(index)
    manifest = runs.manifest_of(folder)
    if manifest is None:
        return (folder / "failed.json").exists()
    inputs = _inputs(cfg, recipe)
    if changed := [key for key in inputs if manifest["inputs"].get(key) != json.loads(json.dumps(inputs[key]))]:
        raise ValueError(
            f"{folder} was made from another {changed[0]}; an ingredient is fixed once made: choose another name=..., "
            f"or delete {folder} to make it again"
        )
    return True


def _finetune(cfg: Config, recipes: list[Recipe], index: int) -> str | None:
    """Fine-tune one ingredient into its folder; the reason if it diverged."""
    folder, recipe = cfg.run.ingredient(index), recipes[index]
    inputs = _inputs(cfg, recipe)
    runs.write_json(folder / "recipe.json", asdict(recipe))
    initial = weights.load_state(Path(initial_models(cfg)["initialization"].path))
    trainer = Trainer(cfg, recipe, folder, open_set(cfg.data.dir, cfg.data.train), initial)
    diverged = trainer.train(runs.fingerprint(inputs))
    if diverged:
        runs.write_json(folder / "failed.json", diverged)
        return str(diverged["reason"])
    state = {k: v.detach().cpu().float().contiguous() for k, v in trainer.model.state_dict().items()}
    path = folder / "model.safetensors"
    runs.save_weights(path, state)
    facts = {"sha256": weights.state_sha256(state), "steps": trainer.total, "images": trainer.total * recipe.batch_size}
    runs.finish(folder, inputs, [path], **facts, seconds=round(trainer.seconds, 1))
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return None


class Trainer:
    """One run: AdamW on every parameter, cosine by the step, warm-up, clipping, mixup, label smoothing (J.2.1)."""

    def __init__(self, cfg: Config, recipe: Recipe, folder: Path, train: ShardSet, initial: weights.State) -> None:
        self.cfg, self.recipe, self.folder, self.train_set = cfg, recipe, folder, train
        self.per_epoch = len(train) // recipe.batch_size  # the last, smaller batch of an epoch is dropped
        if self.per_epoch == 0:
            raise ValueError(f"recipe.batch_size={recipe.batch_size}: {train.folder} has only {len(train)} images")
        self.total = self.per_epoch * recipe.epochs
        self.model: Classifier = shell(cfg, len(train.classes))
        self.model.load_state_dict(dict(initial))
        self.model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
        self.step = 0
        self.seconds = 0.0

    def train(self, made_from: str) -> dict[str, Any] | None:
        """Train to the end, from the last checkpoint if there is one; where and why if the loss diverged."""
        self._resume(made_from)
        advance(self.step * self.recipe.batch_size)
        every = self.cfg.finetune
        started, before = time.monotonic(), self.seconds
        for images_BCHW, labels_B in self._batches():
            loss = self._update(images_BCHW, labels_B)
            self.step += 1
            self.seconds = before + time.monotonic() - started
            advance(self.recipe.batch_size)
            if self.step % every.log_every == 0 or self.step == self.total:
                value = float(loss)
                if not math.isfinite(value):
                    return {"reason": f"the loss is {value} at step {self.step}", "step": self.step}
                self._log(value)
            if self.step % every.checkpoint_every == 0 and self.step < self.total:
                self._save(made_from)
        if not all(bool(torch.isfinite(p).all()) for p in self.model.parameters()):
            return {"reason": f"weights are not finite after step {self.step}", "step": self.step}
        return None

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(images_BCHW, labels_B) from self.step to the end."""
        recipe, model = self.recipe, self.model
        crop = train_crop(recipe.aug, model.image_size, model.mean, recipe.min_crop, recipe.flip)
        for epoch in range(self.step // self.per_epoch, recipe.epochs):
            order_N = training.epoch_order(len(self.train_set), recipe.seed, epoch)
            begin = self.step - epoch * self.per_epoch
            for batch in range(begin, self.per_epoch):
                index_B = order_N[batch * recipe.batch_size : (batch + 1) * recipe.batch_size]
                pixels = []
                for index in index_B.tolist():
                    image = decoded(self.train_set, index)
                    seed_sample(recipe.seed, epoch, index)
                    pixels.append(to_uint8(crop(image)))
                labels_B = torch.from_numpy(self.train_set.labels_N[index_B.numpy()])
                yield normalise(model, torch.stack(pixels)), labels_B.to(model.head.weight.device)

    def _update(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        recipe = self.recipe
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

    # ---- metrics and checkpoints: the metrics of a step are on disk before a checkpoint of it ----

    def _log(self, loss: float) -> None:
        row = {
            "step": self.step,
            "epoch": self.step / self.per_epoch,
            "loss": loss,
            "lr": self.optimizer.param_groups[0]["lr"],
            "timing": {"seconds": round(self.seconds, 3)},
        }
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _save(self, made_from: str) -> None:
        with open(self.folder / "metrics.jsonl", "ab") as metrics:
            os.fsync(metrics.fileno())
        state = {
            "made_from": made_from,
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with runs.atomic(self.folder / "checkpoint.pt") as tmp:
            torch.save(state, tmp)

    def _resume(self, made_from: str) -> None:
        """Load checkpoint.pt if it is there and whole, and cut metrics.jsonl to its step."""
        path = self.folder / "checkpoint.pt"
        if path.exists():
            state = load_checkpoint(path)
            if state is None:
                print(f"finetune: {path} is damaged; beginning this ingredient anew", flush=True)
            elif state["made_from"] != made_from:
                raise ValueError(
                    f"{path} belongs to another recipe, initial model or training set; delete {self.folder} to begin "
                    "anew, or choose another name=..."
                )
            else:
                self.model.load_state_dict(state["model"])
                self.optimizer.load_state_dict(state["optimizer"])
                self.step, self.seconds = state["step"], state["seconds"]
        metrics = self.folder / "metrics.jsonl"
        if metrics.exists():
            runs.write_text(metrics, "".join(_until(metrics, self.step)))


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """A checkpoint's content, tensors and plain values only; None when it is damaged or something else."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, OSError, pickle.UnpicklingError):
        return None
    keys = {"made_from", "step", "seconds", "model", "optimizer"}
    return state if isinstance(state, dict) and keys <= set(state) else None


def _until(metrics: Path, step: int) -> Iterator[str]:
    """The whole lines of a metrics file up to a step."""
    for line in metrics.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if json.loads(line)["step"] <= step:
                yield line
        except (ValueError, KeyError):
            return


def decoded(train: ShardSet, index: int) -> Image.Image:
    """One training image; those of a small set are decoded once a process."""
    if train.bytes > KEEP_DECODED:
        return train.image(index)
    return _decoded_once(str(train.folder), train.sha256)[index]


@functools.lru_cache(maxsize=1)
def _decoded_once(folder: str, sha256: str) -> list[Image.Image]:
    train = ShardSet(Path(folder))
    return [train.image(i) for i in range(len(train))]
