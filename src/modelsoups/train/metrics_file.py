"""Writer of a run's metrics.jsonl. A row is written once its loss has arrived from the GPU."""

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
from modelsoups.train import throughput
from modelsoups.train.device import Device
from modelsoups.train.resume import copies_done


@dataclass
class Begun:
    """A row of metrics whose loss is still being copied from the GPU."""

    row: dict[str, Any]
    loss: Tensor  # being copied from the GPU
    wait: Callable[[], None]  # until it has arrived
    marks: list[throughput.Mark]
    images: int  # since the previous row


class MetricsFile:
    """Measures the training of `recipe` by `ranks` processes, and writes rows to `path`."""

    def __init__(
        self, path: Path, recipe: Recipe, model: nn.Module, example: Tensor, device: Device, ranks: int
    ) -> None:
        """Store the run's facts; example is two inputs of the model, used to count operations."""
        self.path, self.recipe, self.model, self.example = path, recipe, model, example
        self.device, self.ranks = device, ranks
        self.clock = throughput.Clock(device.torch)
        self.begun: Begun | None = None
        self.step = 0  # of the previous row

    def begin(self, step: int, epoch: float, lr: float, seconds: float, loss: Tensor) -> None:
        """Start a row, and start copying its loss from the GPU."""
        batch_size = self.recipe.batch_size
        speed = round(step * batch_size / seconds, 1)
        timing = {"seconds": round(seconds, 3), "images_per_second": speed, "ranks": self.ranks}
        row = {"step": step, "epoch": epoch, "loss": None, "lr": lr, "timing": timing}
        copied = loss.detach().to("cpu", non_blocking=True)
        images, self.step = (step - self.step) * batch_size, step
        self.begun = Begun(row, copied, copies_done(self.device.cuda), self.clock.take(), images)

    def arrived(self) -> tuple[int, float] | None:
        """Wait for the loss of the started row, and return its step and loss; None if no row."""
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
        """Return images/s and each phase's fraction since the previous row; on a GPU the MFU."""
        found = throughput.summary(throughput.phases(begun.marks), begun.images)
        if found and self.device.cuda:
            dtype = torch.bfloat16 if self.device.bf16 else torch.float32
            peak = throughput.peak_flops(self.device.torch, dtype) * self.ranks
            found["mfu"] = round(found["recent_images_per_second"] * self.flops / peak, 4)
        return found

    @functools.cached_property
    def flops(self) -> int:
        """Return the floating-point operations of training on one image."""
        forward = throughput.forward_flops(self.model, self.example)
        return throughput.training_flops(forward, self.recipe.sam > 0, len(self.recipe.teachers))


def append(path: Path, row: dict[str, Any]) -> None:
    """Append one row to a JSON-lines file; an OSError gives the file's name."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise OSError(error.errno, f"could not write {path}: {error.strerror}") from error


TOO_HIGH = 3.0  # see DivergenceCheck


@dataclass
class DivergenceCheck:
    """Detects a diverged run, but ignores brief spikes of the loss; see `reason`."""

    chance: float  # loss if all logits are equal: ln C for softmax
    patience: int  # steps
    first: float | None = None  # the first loss
    since: int | None = None  # first of the latest consecutive steps with too high a loss

    def reason(self, step: int, loss: float) -> str | None:
        """Return why the run has diverged, or None. Call it with steps in increasing order.

        A run has diverged if its loss is not finite, or for `patience` steps has been above
        TOO_HIGH times both the chance loss and the first loss.
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
