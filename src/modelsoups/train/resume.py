"""Checkpoints from which an interrupted fine-tuning run resumes: the latest and the one before it.

A checkpoint is written atomically, and loaded only if its checksums match. The metrics up to its
step are on disk before the checkpoint is. Learning rate, random seeds and data order are not saved:
they are computed from the hyperparameters and the step.
"""

import functools
import hashlib
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

from modelsoups.disk import provenance, storage
from modelsoups.disk.paths import CHECKPOINT, PACKAGE, PREVIOUS_CHECKPOINT

KEYS = {"made_from", "step", "seconds", "model", "optimizer"}  # that every checkpoint has
NAMES = (CHECKPOINT, PREVIOUS_CHECKPOINT)
ROOMS = ("train", "tasks", "data", "models", "recipes")  # whose code determines what training gives


@functools.cache
def code() -> str:
    """Return a hash of the code that trains and, from a git checkout, the commit."""
    digest, commit = hashlib.sha256(), provenance.git_commit()
    for file in sorted(file for room in ROOMS for file in (PACKAGE / room).rglob("*.py")):
        digest.update(file.read_bytes())
    return f"{digest.hexdigest()[:12]}{f' (commit {commit[:9]})' if commit else ''}"


def continued(before: list[str], now: str) -> list[str]:
    """Return the list of what a run was trained with, such as its code: longer if that changed."""
    return before if before[-1:] == [now] else [*before, now]


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically; an existing one is renamed to PREVIOUS_CHECKPOINT."""
    buffer = io.BytesIO()  # torch.save to a file would hide the cause
    torch.save(state, buffer)
    with storage.atomic(path) as tmp:
        tmp.write_bytes(buffer.getbuffer())
        if path.exists():
            os.replace(path, path.with_name(PREVIOUS_CHECKPOINT))


def load(path: Path) -> dict[str, Any] | None:
    """Return the content of a checkpoint, or None if the file is damaged or not a checkpoint.

    This compares the checksums, which torch.load ignores. Raises OSError if the file is unreadable.
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
    """Return the newest intact checkpoint's name (or None) and the names of damaged newer ones."""
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
    """Truncate metrics.jsonl at the first line that is incomplete or of a step after `step`."""
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
    """Return a copy of nested dicts and lists, with all tensors copied to the CPU.

    Copies from a GPU are asynchronous: call copies_done(cuda=True)() before reading them.
    """
    if isinstance(value, Tensor):
        return value.detach().to("cpu", non_blocking=True) if value.is_cuda else value.detach().clone()
    if isinstance(value, dict):
        return {k: snapshot(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(snapshot, value))
    return value


def copies_done(cuda: bool) -> Callable[[], None]:
    """Return a function that waits until the work now queued on the GPU is done; no-op on a CPU."""
    if not cuda:
        return lambda: None
    event = torch.cuda.Event()
    event.record()
    return event.synchronize


class Writer:
    """Runs jobs one by one in a thread; a job's error is raised by the next start, wait or exit."""

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
