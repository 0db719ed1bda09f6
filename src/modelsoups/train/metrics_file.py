"""The writer of metrics.jsonl, the log of one fine-tuning run: loss, learning rate and speed."""

import functools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelsoups.recipes.recipe import Recipe
from modelsoups.tasks.task import Task
from modelsoups.train import throughput
from modelsoups.train.device import Device
from modelsoups.train.resume import copies_done


@dataclass
class Begun:
    """A line of metrics.jsonl that is written as soon as its loss has been copied from the GPU."""

    row: dict[str, Any]
    loss: Tensor  # being copied from the GPU
    wait: Callable[[], None]  # until it has arrived
    marks: list[throughput.Mark]
    examples: int  # since the previous row


class MetricsFile:
    """Measures the speed of one fine-tuning run and appends lines of metrics to the file `path`."""

    def __init__(self, path: Path, recipe: Recipe, model: nn.Module, task: Task, device: Device, ranks: int) -> None:
        """task: gives the unit of the speed, such as images; ranks: the number of processes."""
        self.path, self.recipe, self.model, self.task = path, recipe, model, task
        self.device, self.ranks = device, ranks
        self.clock = throughput.Clock(device.torch)
        self.begun: Begun | None = None
        self.step = 0  # of the previous row

    def begin(self, step: int, epoch: float, lr: float, seconds: float, loss: Tensor) -> None:
        """Prepare the metrics of `step`, reached after `seconds`; start to copy the loss to the CPU."""
        batch_size = self.recipe.batch_size
        speed = round(step * batch_size / seconds, 1)
        timing = {"seconds": round(seconds, 3), f"{self.task.unit}_per_second": speed, "ranks": self.ranks}
        row = {"step": step, "epoch": epoch, "loss": None, "lr": lr, "timing": timing}
        copied = loss.detach().to("cpu", non_blocking=True)
        examples, self.step = (step - self.step) * batch_size, step
        self.begun = Begun(row, copied, copies_done(self.device.cuda), self.clock.take(), examples)

    def arrived(self) -> tuple[int, float] | None:
        """Wait until the loss of the step given to `begin` is copied; return (step, loss). None without such a step."""
        if self.begun is None:
            return None
        self.begun.wait()
        return self.begun.row["step"], float(self.begun.loss)

    def write(self) -> None:
        begun, self.begun = self.begun, None
        assert begun is not None
        begun.row["loss"] = float(begun.loss)
        begun.row["timing"] |= self._throughput(begun)
        append(self.path, begun.row)

    def _throughput(self, begun: Begun) -> dict[str, Any]:
        """Return the speed, time shares (data, forward, ...) and GPU MFU since the last line."""
        unit = self.task.unit
        found = throughput.summary(throughput.phases(begun.marks), begun.examples, unit)
        if found and self.device.cuda:
            dtype = torch.bfloat16 if self.device.bf16 else torch.float32
            peak = throughput.peak_flops(self.device.torch, dtype) * self.ranks
            found["mfu"] = round(found[f"recent_{unit}_per_second"] * self.flops / peak, 4)
        return found

    @functools.cached_property
    def flops(self) -> int:
        """Return the FLOPs of training on one example, including SAM's second pass and teachers."""
        forward = throughput.forward_flops(self.model, self.task.example(self.model))
        return throughput.training_flops(forward, self.recipe.sam > 0, len(self.recipe.teachers))


def append(path: Path, row: dict[str, Any]) -> None:
    """Append `row` as one line to a JSON-lines file; the message of an OSError names the file."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise OSError(error.errno, f"could not write {path}: {error.strerror}") from error


TOO_HIGH = 3.0  # see DivergenceCheck


@dataclass
class DivergenceCheck:
    """Detects that a run's loss has diverged, but ignores spikes of fewer than `patience` steps."""

    chance: float  # loss if all logits are equal: ln C for softmax
    patience: int  # steps
    first: float | None = None  # the first loss
    since: int | None = None  # first of the latest consecutive steps with too high a loss

    def reason(self, step: int, loss: float) -> str | None:
        """Return a message that says how the run has diverged, or None. Call it in order of steps.

        The run has diverged if its loss is not finite, or if for `patience` steps the loss has been
        above 3 times (TOO_HIGH) the loss of equal logits and 3 times the run's first loss.
        """
        if not math.isfinite(loss):
            return f"the loss is {loss} at step {step}"
        self.first = loss if self.first is None else self.first
        limit = TOO_HIGH * max(self.chance, self.first)
        if loss <= limit:
            self.since = None
            return None
        self.since = step if self.since is None else self.since
        if step - self.since < self.patience:
            return None
        return f"the loss diverged: above {limit:.4g} since step {self.since}, and {loss:.4g} at step {step}"
