"""The training loop of one ingredient, on one process or on several ranks with the same batches: see `finetune`.

Legend: N training images, B of a batch or of one part of it, C classes, H height, W width.
"""

from __future__ import annotations

import itertools
import math
import time
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from modelsoups import checkpoint
from modelsoups.config import Config
from modelsoups.core import training
from modelsoups.core.optimizers import OPTIMIZERS, sharpened
from modelsoups.core.trajectory import Ema, Swa
from modelsoups.core.types import Ingredient, Recipe
from modelsoups.data.loader import Share, Skipped, train_batches
from modelsoups.data.shards import ShardSet
from modelsoups.distributed import ALONE, STOPPED, Ranks, mark_saved
from modelsoups.evaluate import normalise, shell, workers
from modelsoups.lock import Lock
from modelsoups.model import Classifier
from modelsoups.parallel import advance
from modelsoups.pool import initial_models, load_weights


class Trainer:
    """One run by a recipe (J.2.1 and appendix L): see core.types.Recipe."""

    def __init__(
        self,
        cfg: Config,
        recipe: Recipe,
        folder: Path,
        train: ShardSet,
        made_from: str,
        ranks: Ranks = ALONE,
        lock: Lock | None = None,
    ) -> None:
        self.cfg, self.recipe, self.folder, self.train_set, self.made_from = cfg, recipe, folder, train, made_from
        self.ranks, self.lock = ranks, lock
        self.parts = recipe.accumulation(ranks.world, cfg.finetune.at_once)
        self.layouts = [f"{ranks.world}x{self.parts}"]  # ranks x parts that it was trained with
        self.per_epoch = len(train) // recipe.batch_size
        if self.per_epoch == 0:
            raise ValueError(f"recipe.batch_size={recipe.batch_size}: {train.folder} has only {len(train)} images")
        self.total = self.per_epoch * recipe.epochs
        self.model: Classifier = shell(cfg, len(train.classes))
        self.model.head.requires_grad_(recipe.trained == "all")  # the model is shared by the runs of a process
        self.parameters = [
            p for p in self.model.parameters() if p.requires_grad
        ]  # others keep an earlier run's gradient
        self.optimizer = OPTIMIZERS[recipe.optimizer](self.parameters, recipe.lr, recipe.weight_decay)
        self.averages: dict[str, Ema | Swa] = {f"ema-{decay:g}": Ema(decay) for decay in recipe.ema}
        self.averages |= {f"swa-{begin:g}": Swa(begin) for begin in recipe.swa}
        self.network: nn.Module = self.model  # as training calls it
        self.step = 0
        self.seconds = 0.0
        self.loss = math.nan  # of the last step
        self.skipped = Skipped(train, cfg.finetune.skip_corrupt)

    def load(self) -> None:
        """Start from the newest whole checkpoint, or the initial model; cut metrics.jsonl to it."""
        name, damaged = self.ranks.told(checkpoint.newest(self.folder) if self.ranks.first else None)
        for bad in damaged if self.ranks.first else []:
            way = f"continuing from {name}" if name else "beginning this ingredient anew"
            print(f"finetune: {self.folder / bad} is damaged; {way}", flush=True)
        if name:
            self._resume(self.folder / name)
        else:
            self._load_initial(initial_models(self.cfg)["initialization"])
        if self.ranks.first:
            checkpoint.cut(self.folder / "metrics.jsonl", self.step)

    def _resume(self, path: Path) -> None:
        state = checkpoint.load(path)
        if state is None:
            raise ValueError(f"{path} is damaged for rank {self.ranks.rank}, and was not for rank 0")
        if state["made_from"] != self.made_from:
            raise ValueError(
                f"{path} belongs to another recipe, initial model or training set; delete {self.folder} to begin "
                "anew, or choose another name=..."
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, (count, average) in state.get("averages", {}).items():
            self.averages[name].count, self.averages[name].state = count, average
        self.step, self.seconds = state["step"], state["seconds"]
        self.skipped.keys = state.get("skipped", [])
        before = state.get("layouts", ["1x1"])
        if before[-1] != self.layouts[0]:
            self.layouts = [*before, *self.layouts]
            if self.ranks.first:
                print(
                    f"finetune: {self.folder} resumes as {self.layouts[-1]} (ranks x parts of a batch) after "
                    f"{before[-1]}: same batches, sums in another order, so not bit-identical to an undisturbed run",
                    flush=True,
                )
        else:
            self.layouts = before

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
        """Train to the end; where and why if the loss diverged. SystemExit after saving, when asked to stop."""
        advance(self.step * self.recipe.batch_size, resumed=True)
        model, every = self.model.train(), self.cfg.finetune
        side_by_side = self.ranks.here if self.cfg.ingredient is not None else workers(self.cfg)
        share = Share(self.ranks.rank, self.ranks.world, self.parts)
        batches = train_batches(
            self.train_set,
            self.recipe,
            model.image_size,
            model.mean,
            self.step,
            side_by_side,
            share,
            every.decode,
            self.skipped,
        )
        self.network = self.ranks.wrap(model)
        clock = time.monotonic() - self.seconds
        while batch := list(itertools.islice(batches, self.parts)):
            loss = self._update(batch)
            self.step += 1
            self._average()
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
            stop = self.step < self.total and self.ranks.stop()
            if at_save or stop:
                self._save()
            if stop:
                self._stop()
        if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
            return self._diverged(f"weights are not finite after step {self.step}")
        return None

    def _stop(self) -> NoReturn:
        if self.ranks.first:
            print(f"finetune: {self.folder}: asked to stop, saved at step {self.step} of {self.total}", flush=True)
        raise SystemExit(STOPPED)

    def _update(self, batch: list[tuple[Tensor, Tensor]]) -> Tensor:
        """One step on this rank's parts (pixels_BCHW, labels_B) of a batch; the mean loss of the whole batch."""
        recipe = self.recipe
        factor = training.lr_factor(self.step, self.total, recipe.warmup_steps, recipe.schedule, self.per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr * factor
        loss = self._gradient(batch)
        if recipe.sam > 0:  # the gradient is already averaged over ranks: the paper's synchronized perturbation
            with sharpened(self.parameters, recipe.sam):
                self._gradient(batch)
        torch.nn.utils.clip_grad_norm_(self.parameters, recipe.clip)
        self.optimizer.step()
        return self.ranks.mean(loss)

    def _gradient(self, batch: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Leave the gradient of the whole batch with the parameters; the loss of this rank's parts."""
        self.optimizer.zero_grad()
        losses = []
        for number, (pixels_BCHW, labels_B) in enumerate(batch):
            with self.ranks.summing(self.network, last=number == len(batch) - 1):
                loss = self._loss(pixels_BCHW, labels_B, number) / len(batch)
                loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def _average(self) -> None:
        """Take the weights into the averages along the run: each step for EMA, each epoch for SWA."""
        for average in self.averages.values():
            if isinstance(average, Ema):
                average.update(self.model.state_dict())
            elif self.step % self.per_epoch == 0:
                average.update(self.model.state_dict(), self.step / self.total)

    def _loss(self, pixels_BCHW: Tensor, labels_B: Tensor, number: int) -> Tensor:
        """The mean loss of one part of a batch."""
        recipe = self.recipe
        place = self.ranks.rank * self.parts + number
        key = (recipe.seed, "step", self.step, *([place] if place else []))
        torch.manual_seed(training.seeded(*key).initial_seed())  # for models with dropout
        images_BCHW = normalise(self.model, pixels_BCHW)
        labels_B = labels_B.to(images_BCHW.device)
        targets_BC = training.soft_targets(labels_B, len(self.train_set.classes), recipe.label_smoothing)
        if self._cuts():
            lam = training.mixup_lambda(recipe.cutmix, recipe.seed, self.step)
            images_BCHW, targets_BC = training.cutmix(images_BCHW, targets_BC, lam, recipe.seed, self.step)
        elif recipe.mixup > 0:
            lam = training.mixup_lambda(recipe.mixup, recipe.seed, self.step)
            images_BCHW, targets_BC = training.mixup(images_BCHW, targets_BC, lam)
        return training.LOSSES[recipe.loss](self.network(images_BCHW), targets_BC)

    def _cuts(self) -> bool:
        """Whether this step takes CutMix rather than mixup."""
        recipe = self.recipe
        if recipe.cutmix > 0 and recipe.mixup > 0:
            return bool(torch.rand((), generator=training.seeded(recipe.seed, "cutmix", self.step)) < 0.5)
        return recipe.cutmix > 0

    def _diverged(self, reason: str) -> dict[str, Any]:
        return {"reason": reason, "step": self.step, "loss": str(self.loss)}  # JSON has no NaN

    def check_lock(self) -> None:
        """Held when another process has taken the folder over; asked before each write."""
        if self.lock is not None:
            self.lock.check()

    def _log(self) -> None:
        if not self.ranks.first:
            return
        self.check_lock()
        images = self.step * self.recipe.batch_size
        row = {
            "step": self.step,
            "epoch": self.step / self.per_epoch,
            "loss": self.loss,
            "lr": self.optimizer.param_groups[0]["lr"],
            "timing": {
                "seconds": round(self.seconds, 3),
                "images_per_second": round(images / self.seconds, 1),
                "ranks": self.ranks.world,
            },
        }
        checkpoint.log(self.folder / "metrics.jsonl", row)

    def _save(self) -> None:
        if not self.ranks.first:
            return
        self.check_lock()
        checkpoint.sync(self.folder / "metrics.jsonl")
        state = {
            "made_from": self.made_from,
            "step": self.step,
            "seconds": self.seconds,
            "layouts": self.layouts,
            "skipped": self.skipped.keys,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averages": {name: (a.count, a.state) for name, a in self.averages.items()},
        }
        checkpoint.save(self.folder / "checkpoint.pt", state)
        mark_saved()
