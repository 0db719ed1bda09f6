"""The time of each phase of a training step, and model FLOPs utilization (MFU) of a GPU."""

import functools
import itertools
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from modelsoups.soup.holdout import Inputs, call

EXAMPLES = 2  # in the batch that Task.example returns
Mark = tuple[str, Any]  # a phase, and when it ended: seconds on a CPU, an event on a GPU
SIDE = 8192  # size of the square matrices whose product measures a GPU's peak


class Clock:
    """Records when the phases (data, forward, ...) of training steps end; CUDA events on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.marks: list[Mark] = []

    def mark(self, phase: str) -> None:
        """Record that `phase` ends now; it began at the previous mark."""
        now: Any = torch.cuda.Event(enable_timing=True) if self.cuda else time.perf_counter()
        if self.cuda:
            now.record()
        self.marks.append((phase, now))

    def take(self) -> list[Mark]:
        """Return the (phase, time) marks since the last call, preceded by that call's last mark."""
        marks, self.marks = self.marks, self.marks[-1:]
        return marks


def phases(marks: list[Mark]) -> dict[str, float]:
    """Return the total seconds of each phase in consecutive marks; waits for the GPU."""
    seconds = {phase: 0.0 for phase, _ in marks[1:]}
    if marks and isinstance(marks[-1][1], torch.cuda.Event):
        marks[-1][1].synchronize()
    for (_, begin), (phase, end) in itertools.pairwise(marks):
        seconds[phase] += begin.elapsed_time(end) / 1000 if isinstance(end, torch.cuda.Event) else end - begin
    return seconds


def summary(seconds: dict[str, float], examples: int, unit: str) -> dict[str, Any]:
    """Return the speed in examples (their name: `unit`) per second, and each phase's share of the time."""
    total = sum(seconds.values())
    if total == 0:
        return {}
    shares = {phase: round(s / total, 3) for phase, s in seconds.items()}
    return {f"recent_{unit}_per_second": round(examples / total, 1), "shares": shares}


def forward_flops(model: nn.Module, example: Inputs) -> int:
    """Return the FLOPs of a forward pass per example; a multiply-add counts as two.

    A model of one tensor runs on meta tensors. A text model runs once on its device, on two examples
    without text, so its FLOPs are a lower bound. example: a batch of two, because BatchNorm rejects one.
    """
    meta = {k: v.to("meta") for k, v in (*model.named_parameters(), *model.named_buffers())}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        if isinstance(example, Tensor):
            functional_call(model, meta, (example.to("meta"),))
        else:  # a text model's shapes depend on the tokens' values
            call(model, example)
    return int(counter.get_total_flops()) // EXAMPLES


def training_flops(forward: int, sam: bool, teachers: int) -> int:
    """Return the FLOPs per training example: 3 forward passes (6 with SAM) and one per teacher."""
    return forward * (3 * (2 if sam else 1) + teachers)


@functools.cache
def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Measure and return a GPU's FLOP/s in a large matrix product, the fastest of 20 runs."""
    one, two = (torch.randn(SIDE, SIDE, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(20):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        one @ two
        end.record()
        end.synchronize()
        best = min(best, begin.elapsed_time(end) / 1000)
    return 2 * SIDE**3 / best
