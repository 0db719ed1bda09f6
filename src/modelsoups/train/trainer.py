"""The loop that fine-tunes one model, in one process or in several that share each batch.

Shape letters: N training images, B images of a micro-batch, C channels, H height, W width.
"""

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from modelsoups.config.schema import FinetuneConfig
from modelsoups.data import order
from modelsoups.data.loader import Skipped, deaths_named
from modelsoups.data.order import Share
from modelsoups.data.shards import ShardSet
from modelsoups.disk.paths import CHECKPOINT, METRICS
from modelsoups.experiment.ingredients import load_weights
from modelsoups.models.classifier import Classifier
from modelsoups.models.token_batches import TokenBatch
from modelsoups.recipes.recipe import Recipe
from modelsoups.soup.coefficients import Ingredient
from modelsoups.tasks.task import Step, Task, TrainingData
from modelsoups.train import resume
from modelsoups.train.averages import averages_of, update_all
from modelsoups.train.device import device_of, staged, train_mode
from modelsoups.train.distillation import load_teachers
from modelsoups.train.evaluations import Evaluations
from modelsoups.train.metrics_file import DivergenceCheck, MetricsFile
from modelsoups.train.optimizers import OPTIMIZERS, lr_factor, restore, sharpened, trained_parameters
from modelsoups.train.ranks import mark_saved
from modelsoups.train.workspace import Workspace as Workspace
from modelsoups.workers.processes import advance


class Trainer:
    """Fine-tunes `model` in place with the hyperparameters in `recipe` (appendices J.2.1 and L)."""

    def __init__(
        self,
        task: Task,
        recipe: Recipe,
        settings: FinetuneConfig,
        model: Classifier,
        train: ShardSet,
        workspace: Workspace,
    ) -> None:
        self.task, self.recipe, self.settings, self.model, self.train_set = task, recipe, settings, model, train
        self.workspace, self.ranks = workspace, workspace.ranks
        self.parts = recipe.accumulation(self.ranks.world, settings.at_once)
        self.per_epoch = len(train) // recipe.batch_size
        if self.per_epoch == 0:
            examples = f"the training set {train.folder} has only {len(train)} examples"
            raise ValueError(f"recipe.batch_size={recipe.batch_size} is too large: {examples}")
        self.total = recipe.total_steps(len(train))
        self.device = device_of(settings, next(model.parameters()).device)
        # "ranks x parts of a batch, device"; resuming with a different layout adds an entry.
        self.layouts = [f"{self.ranks.world}x{self.parts} {self.device.name}".rstrip()]
        self.codes = [resume.code()]
        self.parameters = trained_parameters(model, recipe.trained)
        self.optimizer = OPTIMIZERS[recipe.optimizer](self.parameters, recipe.lr, recipe.weight_decay)
        self.averages = averages_of(recipe)
        self.evaluations = Evaluations(task, workspace, settings.evaluate_every, recipe.select == "best")
        self.network: nn.Module = model  # sums its gradients over the ranks
        self.compiled: nn.Module = model  # the network as training calls it
        self.teachers = load_teachers(model, recipe.teachers)
        self.example = task.training_example(model, recipe)
        metrics = workspace.folder / METRICS
        self.metrics = MetricsFile(metrics, recipe, model, task, self.device, self.ranks.world)
        self.step = 0  # steps done
        self.seconds = 0.0
        self.loss = math.nan  # the last one that was read
        self.skipped = Skipped(train, settings.skip_corrupt)
        chance = task.chance_loss(model, recipe.loss, len(train.classes))
        self.check = DivergenceCheck(chance, patience=min(50, max(3, self.total // 10)))

    # ---- starting and resuming ----

    def load(self, initial: Ingredient) -> None:
        """Load the newest intact checkpoint, else `initial`; delete the metrics of later steps."""
        folder, first = self.workspace.folder, self.ranks.first
        self.network = self.ranks.wrap(train_mode(self.model, self.recipe.batchnorm), self.example)
        name, damaged = self.ranks.from_first(resume.newest(folder) if first else None)
        for bad in damaged if first else []:
            way = f"continuing from {name}" if name else "restarting this model from the beginning"
            print(f"finetune: the checkpoint {folder / bad} is damaged; {way}", flush=True)
        if name:
            self._resume(folder / name)
        else:
            try:
                self.model.load_state_dict(load_weights(initial))
            except RuntimeError as error:
                classes = f"the {len(self.train_set.classes)} classes of {self.train_set.folder}"
                raise ValueError(
                    f"{initial.path} does not fit the configured model (model.name) with {classes}; "
                    "write it again with `modelsoups heads`"
                ) from error
        if first:
            for log in (self.metrics.path, self.evaluations.path):
                resume.cut(log, self.step)

    def _resume(self, path: Path) -> None:
        state = resume.load(path)
        if state is None:
            raise ValueError(
                f"rank {self.ranks.rank} cannot read {path}, but rank 0 could; is it on a shared file system?"
            )
        if state["made_from"] != self.workspace.made_from:
            raise ValueError(
                f"{path} is from a run with another recipe, initial model or training set; set another name=..., or "
                f"move {path.parent} away"
            )
        self.model.load_state_dict(state["model"])
        restore(self.optimizer, state["optimizer"])
        for name, (count, average) in state.get("averages", {}).items():
            on_device = {key: tensor.to(self.device.torch) for key, tensor in average.items()}
            self.averages[name].count, self.averages[name].state = count, on_device
        self.evaluations.restore(state.get("best", {}))
        self.step, self.seconds = state["step"], state["seconds"]
        self.skipped.keys = state.get("skipped", [])
        self.check.first, self.check.since = state.get("watch", (None, None))
        self._say_changes(path.parent, state.get("layouts", ["1x1"]), state.get("codes", []))

    def _say_changes(self, folder: Path, layouts: list[str], codes: list[str]) -> None:
        """Keep what the run was trained with before, and say what has changed."""
        changes = []
        if layouts[-1] != (now := self.layouts[0]):
            changes.append((f"with {now} (processes x micro-batches) instead of {layouts[-1]}", "will not"))
        if codes and codes[-1].split()[0] != (code := self.codes[0]).split()[0]:
            changes.append((f"with the code {code} instead of {codes[-1]}", "may not"))
        self.layouts, self.codes = (resume.continued(*it) for it in ((layouts, now), (codes, self.codes[0])))
        for how, may_not in changes if self.ranks.first else []:
            result = f"the result {may_not} be bit-identical to an uninterrupted run"
            print(f"finetune: {folder} resumes {how}; {result}", flush=True)

    # ---- the loop ----

    def train(self) -> dict[str, Any] | None:
        """Train until the end; return None or, if the loss diverged, {reason, step, loss}.

        Raises SystemExit after saving if a stop is requested, and Held if another process
        has taken over the folder.
        """
        with self.device.determined(), deaths_named(), resume.Writer() as self.writer:
            return self._train()

    def _train(self) -> dict[str, Any] | None:
        advance(self.step * self.recipe.batch_size, resumed=True)
        train_mode(self.model, self.recipe.batchnorm)
        self.compiled = self.device.compiled(self.network, self.parts)
        begun, self.metrics.step = time.monotonic() - self.seconds, self.step
        clock, batches = self.metrics.clock, self.batches()
        clock.mark("other")
        while batch := list(itertools.islice(batches, self.parts)):
            clock.mark("data")
            loss = self.update(batch)
            self.step += 1
            update_all(self.averages, self.model.state_dict(), self.step / self.total, self.step % self.per_epoch == 0)
            self.seconds = time.monotonic() - begun
            advance(self.recipe.batch_size)
            if self.evaluations.due(self.step, self.total):
                self.evaluations.evaluate(self.step, self.model, self.averages)
            if diverged := self._log_and_save(loss):
                return diverged
            clock.mark("other")
        if not all(bool(torch.isfinite(p).all()) for p in self.model.parameters()):
            return self._diverged(f"weights are not finite after step {self.step}", self.step)
        return None

    def batches(self) -> Iterator[tuple[Tensor | TokenBatch, Tensor]]:
        """Yield this rank's micro-batches from the current step on: inputs (uint8 pixels, tokens) and labels."""
        data = TrainingData(
            self.train_set,
            self.step,
            Share(self.ranks.rank, self.ranks.world, self.parts),
            self.skipped,
            self.settings.decode,
            self.device.augment,
            self.workspace.side_by_side,
            self.workspace.shared,
        )
        batches = self.task.train_batches(self.model, self.recipe, data)
        return staged(batches, self.device.torch, self.parts)

    def update(self, batch: list[tuple[Tensor | TokenBatch, Tensor]]) -> Tensor:
        """Do one optimizer step on this rank's micro-batches; return the mean loss of all ranks."""
        recipe = self.recipe
        factor = lr_factor(self.step, self.total, recipe.warmup_steps, recipe.schedule, self.per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr * factor
        loss = self._gradient(batch, summed=recipe.sam == 0 or recipe.sam_sync)
        if recipe.sam > 0:
            with sharpened(self.parameters, recipe.sam):
                self._gradient(batch)
        torch.nn.utils.clip_grad_norm_(self.parameters, recipe.clip)
        self.optimizer.step()
        self.metrics.clock.mark("optimizer")
        return self.ranks.mean(loss)

    def _gradient(self, batch: list[tuple[Tensor | TokenBatch, Tensor]], summed: bool = True) -> Tensor:
        """Compute the gradient, averaged over ranks if `summed`; return this rank's mean loss."""
        self.optimizer.zero_grad()
        losses = []
        for part, (inputs, labels_B) in enumerate(batch):
            with self.ranks.summing(self.network, last=summed and part == len(batch) - 1):
                loss = self._loss(inputs, labels_B, part) / len(batch)
                self.metrics.clock.mark("forward")
                loss.backward()
                self.metrics.clock.mark("backward")
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def _loss(self, batch: Tensor | TokenBatch, labels_B: Tensor, part: int) -> Tensor:
        """Seed torch for this step, rank and micro-batch `part`; return the part's mean loss."""
        recipe = self.recipe
        place = self.ranks.rank * self.parts + part
        key = (recipe.seed, "step", self.step, *([place] if place else []))
        torch.manual_seed(order.seeded(*key).initial_seed())  # for models with dropout
        classes = len(self.train_set.classes)
        step = Step(recipe, self.step, classes, self.device.autocast, self.teachers)
        return self.task.loss(self.compiled, self.model, batch, labels_B, step)

    # ---- after a step ----

    def _log_and_save(self, loss: Tensor) -> dict[str, Any] | None:
        """Write metrics and a checkpoint if due; return {reason, step, loss} if diverged.

        Reading a loss waits for the GPU, so that is done when a checkpoint or a metrics line is due.
        """
        settings, last = self.settings, self.step == self.total
        logs = self.step % settings.log_every == 0 or last
        stops = not last and self.ranks.stop()
        saves = stops or (self.step % settings.checkpoint_every == 0 and not last)
        reads = saves or last or self.step == 1 or not self.device.deferred
        if (logs or reads) and (diverged := self._write_metrics()):
            return diverged
        if reads:
            self.loss = float(loss)
            if reason := self.check.reason(self.step, self.loss):
                return self._diverged(reason, self.step)
        if logs:
            lr = float(self.optimizer.param_groups[0]["lr"])
            self.metrics.begin(self.step, self.step / self.per_epoch, lr, self.seconds, loss)
            if reads and (diverged := self._write_metrics()):
                return diverged
        if saves:
            self._save()
        if stops:
            self._stop()
        return None

    def _write_metrics(self) -> dict[str, Any] | None:
        """Write the prepared line of metrics; return {reason, step, loss} if the loss diverged."""
        arrived = self.metrics.arrived()
        if arrived is None:
            return None
        step, self.loss = arrived
        if reason := self.check.reason(step, self.loss):
            return self._diverged(reason, step)
        if self.ranks.first:
            self.workspace.check_lock()
            self.metrics.write()
        return None

    def _diverged(self, reason: str, step: int) -> dict[str, Any]:
        return {"reason": reason, "step": step, "loss": str(self.loss)}  # JSON has no NaN

    def _save(self) -> None:
        """Copy the training state, and write it as a checkpoint in a thread (on rank 0 only)."""
        if not self.ranks.first:
            return
        self.workspace.check_lock()
        state = {
            "made_from": self.workspace.made_from,
            "step": self.step,
            "seconds": self.seconds,
            "layouts": list(self.layouts),
            "codes": list(self.codes),
            "skipped": list(self.skipped.keys),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "watch": (self.check.first, self.check.since),
            "averages": {name: (average.count, average.state) for name, average in self.averages.items()},
        }
        copy, copied = resume.snapshot(state), resume.copies_done(self.device.cuda)
        copy["best"] = self.evaluations.checkpoint()
        self.writer.start(functools.partial(self._write_checkpoint, copy, copied))

    def _write_checkpoint(self, state: dict[str, Any], wait: Callable[[], None]) -> None:
        wait()
        resume.sync(self.metrics.path)  # with every row up to this step
        if self.evaluations.path.exists():
            resume.sync(self.evaluations.path)
        self.workspace.check_lock()
        resume.save(self.workspace.folder / CHECKPOINT, state)
        mark_saved()

    def _stop(self) -> NoReturn:
        self.writer.wait()
        if self.ranks.first:
            saved = f"saved a checkpoint at step {self.step} of {self.total}"
            print(f"finetune: {self.workspace.folder}: stopped on request, {saved}", flush=True)
        raise SystemExit(self.ranks.stopped)
