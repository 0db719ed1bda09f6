"""Files for resuming a run: a checkpoint, the previous one, and metrics up to its step.

A checkpoint is written completely or not at all, and read only if no byte has changed. The metrics of
a step are on disk before its checkpoint. Learning rate, random numbers and data order are not saved:
they are functions of recipe and step.
"""

import io
import json
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelsoups.disk import storage
from modelsoups.disk.paths import CHECKPOINT, PREVIOUS_CHECKPOINT

KEYS = {"made_from", "step", "seconds", "model", "optimizer"}  # that every checkpoint has
NAMES = (CHECKPOINT, PREVIOUS_CHECKPOINT)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, and rename the existing one to PREVIOUS_CHECKPOINT."""
    buffer = io.BytesIO()  # torch.save to a file would hide the cause
    torch.save(state, buffer)
    with storage.atomic(path) as tmp:
        tmp.write_bytes(buffer.getbuffer())
        if path.exists():
            os.replace(path, path.with_name(PREVIOUS_CHECKPOINT))


def load(path: Path) -> dict[str, Any] | None:
    """Load a checkpoint's tensors and plain values; return None if it is damaged or not a checkpoint.

    torch.load does not compare the checksums that torch.save writes, so they are compared here.
    Raises OSError if the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:  # damaged bytes make zipfile and the unpickler raise anything
        return None
    return state if isinstance(state, dict) and set(state) >= KEYS else None


def newest(folder: Path) -> tuple[str | None, list[str]]:
    """Return the newest intact checkpoint's name (or None), and newer, damaged ones' names."""
    damaged = list[str]()
    for name in filter(lambda name: (folder / name).exists(), NAMES):
        if load(folder / name) is not None:
            return name, damaged
        damaged.append(name)
    return None, damaged


def remove(folder: Path) -> None:
    for name in NAMES:
        (folder / name).unlink(missing_ok=True)


def sync(metrics: Path) -> None:
    with open(metrics, "ab") as file:
        os.fsync(file.fileno())


def cut(metrics: Path, step: int) -> None:
    """Remove the rows after a step from the metrics file, and any incomplete row."""
    if not metrics.exists():
        return
    kept = []
    for line in metrics.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            if not line.endswith("\n") or json.loads(line)["step"] > step:
                break
        except (ValueError, KeyError, TypeError):
            break
        kept.append(line)
    storage.write_text(metrics, "".join(kept))


def snapshot(value: Any) -> Any:
    """Return a copy of nested dictionaries and lists, with their tensors copied to the CPU.

    From a GPU the copies are only queued: wait with `copies_done` before reading them.
    """
    if isinstance(value, Tensor):
        return value.detach().to("cpu", non_blocking=True) if value.is_cuda else value.detach().clone()
    if isinstance(value, dict):
        return {k: snapshot(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(snapshot, value))
    return value


def copies_done(cuda: bool) -> Callable[[], None]:
    """Return a function that waits for all work that is queued on the GPU now."""
    if not cuda:
        return lambda: None
    event = torch.cuda.Event()
    event.record()
    return event.synchronize


class Writer:
    """Runs one job at a time in a thread; the next call, or leaving the block, raises its error."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, "checkpoint")
        self.job: Future[None] | None = None

    def start(self, work: Callable[[], None]) -> None:
        self.wait()
        self.job = self.pool.submit(work)

    def wait(self) -> None:
        job, self.job = self.job, None
        if job is not None:
            job.result()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, error: object, *details: object) -> None:
        self.pool.shutdown()  # waits for the last job, also after an error
        if error is None:
            self.wait()
