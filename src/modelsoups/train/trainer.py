"""The training loop of one ingredient, on one process or on several ranks with the same batches: see `finetune`.

Legend: N training images, B of a batch or of one part of it, C classes, H height, W width.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from modelsoups.config.schema import Config
from modelsoups.data import order
from modelsoups.data.loader import Preprocessing, Share, Skipped, train_batches
from modelsoups.data.shards import ShardSet
from modelsoups.disk.lock import Lock
from modelsoups.experiment.ingredients import initial_models, load_weights
from modelsoups.experiment.logits import shell
from modelsoups.models.classifier import Classifier, normalise
from modelsoups.recipes.recipe import Recipe
from modelsoups.soup.coefficients import Ingredient
from modelsoups.train import resume, throughput
from modelsoups.train import step as training
from modelsoups.train.averages import Ema, Swa
from modelsoups.train.device import device_of, staged
from modelsoups.train.distillation import Ensemble
from modelsoups.train.metrics_file import Progress
from modelsoups.train.optimizers import OPTIMIZERS, restore, sharpened
from modelsoups.train.ranks import ALONE, STOPPED, Ranks, mark_saved
from modelsoups.train.resume import Writer, copied, snapshot
from modelsoups.workers.processes import advance, worker_count


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
        self.per_epoch = len(train) // recipe.batch_size
        if self.per_epoch == 0:
            raise ValueError(f"recipe.batch_size={recipe.batch_size}: {train.folder} has only {len(train)} images")
        self.total = self.per_epoch * recipe.epochs
        self.model: Classifier = shell(cfg, len(train.classes))
        self.device = device_of(cfg.finetune, self.model.head.weight.device)
        self.layouts = [f"{ranks.world}x{self.parts} {self.device.name}".rstrip()]  # ranks x parts, how they compute
        self.device.layout(self.model)
        self.model.head.requires_grad_(recipe.trained == "all")  # the model is shared by the runs of a process
        self.parameters = [
            p for p in self.model.parameters() if p.requires_grad
        ]  # others keep an earlier run's gradient
        self.optimizer = OPTIMIZERS[recipe.optimizer](self.parameters, recipe.lr, recipe.weight_decay)
        self.averages: dict[str, Ema | Swa] = {f"ema-{decay:g}": Ema(decay) for decay in recipe.ema}
        self.averages |= {f"swa-{begin:g}": Swa(begin) for begin in recipe.swa}
        self.network: nn.Module = self.model  # with its gradients summed over ranks
        self.compiled: nn.Module = self.model  # as training calls it
        self.teachers = Ensemble(self.model, recipe.teachers) if recipe.teachers else None
        metrics = folder / "metrics.jsonl"
        self.progress = Progress(metrics, self.device, recipe.batch_size, ranks.world, lambda: self.flops)
        self.step = 0
        self.seconds = 0.0
        self.loss = math.nan  # of the last step
        self.skipped = Skipped(train, cfg.finetune.skip_corrupt)
        chance = training.chance_loss(recipe.loss, len(train.classes))
        self.watch = training.Watch(chance, patience=min(50, max(3, self.total // 10)))

    def load(self) -> None:
        """Start from the newest whole checkpoint, or the initial model; cut metrics.jsonl to it."""
        size = self.model.image_size
        self.network = self.ranks.wrap(self.model.train(), next(self.model.parameters()).new_zeros(2, 3, size, size))
        name, damaged = self.ranks.told(resume.newest(self.folder) if self.ranks.first else None)
        for bad in damaged if self.ranks.first else []:
            way = f"continuing from {name}" if name else "beginning this ingredient anew"
            print(f"finetune: {self.folder / bad} is damaged; {way}", flush=True)
        if name:
            self._resume(self.folder / name)
        else:
            self._load_initial(initial_models(self.cfg)["initialization"])
        if self.ranks.first:
            resume.cut(self.folder / "metrics.jsonl", self.step)

    def _resume(self, path: Path) -> None:
        state = resume.load(path)
        if state is None:
            raise ValueError(f"{path} is damaged for rank {self.ranks.rank}, and was not for rank 0")
        if state["made_from"] != self.made_from:
            raise ValueError(
                f"{path} belongs to another recipe, initial model or training set; delete {self.folder} to begin "
                "anew, or choose another name=..."
            )
        self.model.load_state_dict(state["model"])
        restore(self.optimizer, state["optimizer"])
        for name, (count, average) in state.get("averages", {}).items():
            on_device = {k: v.to(self.device.torch) for k, v in average.items()}
            self.averages[name].count, self.averages[name].state = count, on_device
        self.step, self.seconds = state["step"], state["seconds"]
        self.skipped.keys = state.get("skipped", [])
        self.watch.first, self.watch.since = state.get("watch", (None, None))
        before = state.get("layouts", ["1x1"])
        if before[-1] != self.layouts[0]:
            self.layouts = [*before, *self.layouts]
            if self.ranks.first:
                print(
                    f"finetune: {self.folder} resumes as {self.layouts[-1]} (ranks x parts of a batch) after "
                    f"{before[-1]}: so not bit-identical to an undisturbed run",
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
        with self.device.determined(), Writer() as self.writer:
            return self._train()

    def _train(self) -> dict[str, Any] | None:
        advance(self.step * self.recipe.batch_size, resumed=True)
        model, every = self.model.train(), self.cfg.finetune
        self.compiled = self.device.compiled(self.network, self.parts)
        clock, self.progress.step = time.monotonic() - self.seconds, self.step
        self.progress.clock.mark("other")
        batches = self._batches()
        while batch := list(itertools.islice(batches, self.parts)):
            self.progress.clock.mark("data")
            loss = self._update(batch)
            self.step += 1
            self._average()
            self.seconds = time.monotonic() - clock
            advance(self.recipe.batch_size)
            at_log = self.step % every.log_every == 0 or self.step == self.total
            stop = self.step < self.total and self.ranks.stop()
            at_save = stop or (self.step % every.checkpoint_every == 0 and self.step < self.total)
            # reading a loss makes a GPU wait: done where weights are saved, otherwise a line of metrics later
            reads = at_save or self.step in (1, self.total) or not self.device.deferred
            if (at_log or reads) and (diverged := self._write_row()):
                return diverged
            if reads:
                self.loss = float(loss)
                if reason := self.watch.reason(self.step, self.loss):
                    return self._diverged(reason, self.step)
            if at_log:
                self.progress.begin(self.step, self.step / self.per_epoch, self._lr(), self.seconds, loss)
                if reads and (diverged := self._write_row()):
                    return diverged
            if at_save:
                self._save()
            if stop:
                self._stop()
            self.progress.clock.mark("other")
        if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
            return self._diverged(f"weights are not finite after step {self.step}", self.step)
        return None

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(pixels_BCHW, labels_B) of this rank's parts of each step, on the device."""
        side_by_side = self.ranks.here if self.cfg.ingredient is not None else worker_count(self.cfg.finetune.parallel)
        share = Share(self.ranks.rank, self.ranks.world, self.parts)
        preprocessing = Preprocessing(
            self.model.image_size, self.model.mean, self.cfg.finetune.decode, self.device.augment, side_by_side
        )
        batches = train_batches(self.train_set, self.recipe, preprocessing, self.step, share, self.skipped)
        return staged(batches, self.device.torch, self.parts)

    def _stop(self) -> NoReturn:
        self.writer.wait()
        if self.ranks.first:
            print(f"finetune: {self.folder}: asked to stop, saved at step {self.step} of {self.total}", flush=True)
        raise SystemExit(STOPPED)

    def _update(self, batch: list[tuple[Tensor, Tensor]]) -> Tensor:
        """One step on this rank's parts (pixels_BCHW, labels_B) of a batch; the mean loss of the whole batch."""
        recipe = self.recipe
        factor = training.lr_factor(self.step, self.total, recipe.warmup_steps, recipe.schedule, self.per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr * factor
        loss = self._gradient(batch, summed=recipe.sam == 0 or recipe.sam_sync)
        if recipe.sam > 0:
            with sharpened(self.parameters, recipe.sam):
                self._gradient(batch)
        torch.nn.utils.clip_grad_norm_(self.parameters, recipe.clip)
        self.optimizer.step()
        self.progress.clock.mark("optimizer")
        return self.ranks.mean(loss)

    def _gradient(self, batch: list[tuple[Tensor, Tensor]], summed: bool = True) -> Tensor:
        """Leave the gradient of the whole batch, or of this rank's part, with the parameters; this rank's loss."""
        self.optimizer.zero_grad()
        losses = []
        for number, (pixels_BCHW, labels_B) in enumerate(batch):
            with self.ranks.summing(self.network, last=summed and number == len(batch) - 1):
                loss = self._loss(pixels_BCHW, labels_B, number) / len(batch)
                self.progress.clock.mark("forward")
                loss.backward()
                self.progress.clock.mark("backward")
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
        torch.manual_seed(order.seeded(*key).initial_seed())  # for models with dropout
        images_BCHW = normalise(self.model, pixels_BCHW)
        targets_BC = training.soft_targets(labels_B, len(self.train_set.classes), recipe.label_smoothing)
        if self._cuts():
            lam = training.mixup_lambda(recipe.cutmix, recipe.seed, self.step)
            images_BCHW, targets_BC = training.cutmix(images_BCHW, targets_BC, lam, recipe.seed, self.step)
        elif recipe.mixup > 0:
            lam = training.mixup_lambda(recipe.mixup, recipe.seed, self.step)
            images_BCHW, targets_BC = training.mixup(images_BCHW, targets_BC, lam)
        with self.device.autocast():
            if self.teachers is not None:
                targets_BC = self.teachers.targets(images_BCHW, recipe.loss)
            logits_BC = self.compiled(images_BCHW)
        return training.LOSSES[recipe.loss](logits_BC, targets_BC)

    def _cuts(self) -> bool:
        """Whether this step takes CutMix rather than mixup."""
        recipe = self.recipe
        if recipe.cutmix > 0 and recipe.mixup > 0:
            return bool(torch.rand((), generator=order.seeded(recipe.seed, "cutmix", self.step)) < 0.5)
        return recipe.cutmix > 0

    def _lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _diverged(self, reason: str, step: int) -> dict[str, Any]:
        return {"reason": reason, "step": step, "loss": str(self.loss)}  # JSON has no NaN

    def check_lock(self) -> None:
        """Held when another process has taken the folder over; asked before each write."""
        if self.lock is not None:
            self.lock.check()

    def _write_row(self) -> dict[str, Any] | None:
        """Write the line of metrics that was begun; where and why if the run diverged."""
        arrived = self.progress.arrived()
        if arrived is None:
            return None
        step, self.loss = arrived
        if reason := self.watch.reason(step, self.loss):
            return self._diverged(reason, step)
        if self.ranks.first:
            self.check_lock()
            self.progress.write()
        return None

    @functools.cached_property
    def flops(self) -> int:
        """Of one image in training."""
        forward = throughput.forward_flops(self.model, self.model.image_size)
        return throughput.training_flops(forward, self.recipe.sam > 0, len(self.recipe.teachers))

    def _save(self) -> None:
        """Copy what a run needs to continue, and have it written beside the steps that follow."""
        if not self.ranks.first:
            return
        self.check_lock()
        averages = {name: (a.count, a.state) for name, a in self.averages.items()}
        state = {
            "made_from": self.made_from,
            "step": self.step,
            "seconds": self.seconds,
            "layouts": list(self.layouts),
            "skipped": list(self.skipped.keys),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "watch": (self.watch.first, self.watch.since),
            "averages": averages,
        }
        self.writer.start(functools.partial(self._write_checkpoint, snapshot(state), copied(self.device.cuda)))

    def _write_checkpoint(self, state: dict[str, Any], arrive: Callable[[], None]) -> None:
        arrive()
        resume.sync(self.folder / "metrics.jsonl")  # with every line up to this step
        self.check_lock()
        resume.save(self.folder / "checkpoint.pt", state)
        mark_saved()
