"""What a run leaves for the one that resumes it: checkpoint.pt and metrics.jsonl of an ingredient's folder.

A checkpoint is written whole or not at all, and read only if every byte is as it was written; the one before it is
kept as checkpoint.prev.pt. The metrics of a step are on disk before a checkpoint of that step is. Schedule, random
numbers and the position in the data are functions of (recipe, step), so that the step stands for them.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from modelsoups.disk import storage

KEYS = {"made_from", "step", "seconds", "model", "optimizer"}
FILES = ("checkpoint.pt", "checkpoint.prev.pt")


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically, and keep the one before; OSError names the file and says what the disk said."""
    buffer = io.BytesIO()  # torch.save to a file hides the disk's error behind one of its own
    torch.save(state, buffer)
    with storage.atomic(path) as tmp:
        tmp.write_bytes(buffer.getbuffer())
        if path.exists():
            os.replace(path, path.with_name(FILES[1]))


def newest(folder: Path) -> tuple[str | None, list[str]]:
    """The name of the newest whole checkpoint, and those of newer ones that are damaged."""
    damaged: list[str] = []
    for name in FILES:
        if (folder / name).exists():
            if load(folder / name) is not None:
                return name, damaged
            damaged.append(name)
    return None, damaged


def remove(folder: Path) -> None:
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any] | None:
    """A checkpoint's content, tensors and plain values only; None when it is damaged or something else.

    torch.load does not look at the check sums that torch.save writes, and would take a flipped bit for a weight.
    Raises OSError when the disk refuses.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:  # zipfile and the unpickler raise whatever foreign bytes lead them to
        return None
    return state if isinstance(state, dict) and set(state) >= KEYS else None


def log(metrics: Path, row: dict[str, Any]) -> None:
    """Append one line of metrics; OSError names the file."""
    try:
        with open(metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise OSError(error.errno, f"could not write {metrics}: {error.strerror}") from error


def sync(metrics: Path) -> None:
    with open(metrics, "ab") as file:
        os.fsync(file.fileno())


def cut(metrics: Path, step: int) -> None:
    """Drop the lines after a step, and one that was broken off."""
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
