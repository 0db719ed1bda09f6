"""Checkpoints that are written while training goes on: `snapshot` copies, a `Writer` writes in a thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import torch
from torch import Tensor


def snapshot(value: Any) -> Any:
    """A copy of nested dictionaries and lists, on the CPU, that training does not change any more.

    From a GPU the copies are queued (to pinned memory) and not waited for: `copied` gives what waits.
    """
    if isinstance(value, Tensor):
        return value.detach().to("cpu", non_blocking=True) if value.is_cuda else value.detach().clone()
    if isinstance(value, dict):
        return {k: snapshot(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(snapshot(v) for v in value)
    return value


def copied(cuda: bool) -> Callable[[], None]:
    """What waits until everything that was queued on the GPU so far is there."""
    if not cuda:
        return lambda: None
    event = torch.cuda.Event()
    event.record()
    return event.synchronize


class Writer:
    """Does one job at a time in a thread; what goes wrong with it is raised by the next call, or at the end."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, "checkpoint")
        self.job: Future[None] | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin a job once the one before is done."""
        self.wait()
        self.job = self.pool.submit(work)

    def wait(self) -> None:
        job, self.job = self.job, None
        if job is not None:
            job.result()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.pool.shutdown()  # the last job is done whatever happened
        if kind is None:
            self.wait()
