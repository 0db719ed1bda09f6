"""metrics.jsonl of a run: a line is begun at its step, and written once its loss has come from the GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelsoups.train import resume, throughput
from modelsoups.train.device import Device
from modelsoups.train.resume import copied


@dataclass
class Row:
    content: dict[str, Any]
    loss: Tensor  # on its way
    arrive: Callable[[], None]  # waits for it
    marks: list[throughput.Mark]
    images: int  # since the line before


class Progress:
    """images counts those of a step on all ranks together, flops gives the operations of one in training."""

    def __init__(self, metrics: Path, device: Device, images: int, ranks: int, flops: Callable[[], int]) -> None:
        self.metrics, self.device, self.images, self.ranks, self.flops = metrics, device, images, ranks, flops
        self.clock = throughput.Clock(device.torch)
        self.row: Row | None = None
        self.step = 0  # of the line before

    def begin(self, step: int, epoch: float, lr: float, seconds: float, loss: Tensor) -> None:
        """Note a line, and ask the GPU for its loss."""
        timing = {
            "seconds": round(seconds, 3),
            "images_per_second": round(step * self.images / seconds, 1),
            "ranks": self.ranks,
        }
        content = {"step": step, "epoch": epoch, "loss": None, "lr": lr, "timing": timing}
        fetched = loss.detach().to("cpu", non_blocking=True)
        marks, images = self.clock.take(), (step - self.step) * self.images
        self.row, self.step = Row(content, fetched, copied(self.device.cuda), marks, images), step

    def arrived(self) -> tuple[int, float] | None:
        """Step and loss of the line that was begun, if there is one."""
        if self.row is None:
            return None
        self.row.arrive()
        return self.row.content["step"], float(self.row.loss)

    def write(self) -> None:
        """Append the line that was begun."""
        row, self.row = self.row, None
        assert row is not None
        row.content["loss"] = float(row.loss)
        row.content["timing"] |= self._speed(row)
        resume.log(self.metrics, row.content)

    def _speed(self, row: Row) -> dict[str, Any]:
        """images/s and where the time went since the line before; MFU on a GPU."""
        found = throughput.summary(throughput.phases(row.marks), row.images)
        if found and self.device.cuda:
            dtype = torch.bfloat16 if self.device.bf16 else torch.float32
            peak = throughput.peak_flops(self.device.torch, dtype) * self.ranks
            found["mfu"] = round(found["recent_images_per_second"] * self.flops() / peak, 4)
        return found
