"""One writer a folder, on any shared file system: a lock that a dead holder gives up, and that cannot be had twice.

A lock is a file lock.<n> in the folder, made with O_EXCL; its holder touches it every few seconds. A newcomer takes a
folder over by making lock.<n+1> once the holder is gone: its process does not exist (same host), SLURM has started the
same job again (SLURM believes that the earlier start is dead), or its file has not been touched for LEASE seconds by
the newcomer's own clock. A holder that finds a higher number has been taken for dead, and must not write any more.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BEAT = 5.0  # seconds between signs of life
LEASE = 60.0  # seconds without one after which a holder on another host is taken for dead


class Held(ValueError):
    """Another process is at work on the folder."""


class Lock:
    def __init__(self, file: Path) -> None:
        self.file, self.number = file, _number(file)
        self._end = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()

    def _beat(self) -> None:
        while not self._end.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self.file)

    def check(self) -> None:
        """Before each write: Held when another process has taken this folder over."""
        if max(map(_number, _files(self.file.parent)), default=0) > self.number:
            raise Held(f"{self.file.parent} has been taken over by another process, which took this one for dead")

    def release(self) -> None:
        self._end.set()
        self._beating.join()
        self.file.unlink(missing_ok=True)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[Lock]:
    """Hold the folder's lock; Held names a holder that is alive, which may take LEASE seconds to see."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = _take(folder)
    try:
        yield lock
    finally:
        lock.release()


def _take(folder: Path) -> Lock:
    gone: list[Path] = []
    for file in _files(folder):
        if not _is_gone(file):
            raise Held(_says(file))
        gone.append(file)
    mine = folder / f"lock.{max(map(_number, gone), default=0) + 1}"
    try:
        with open(mine, "x", encoding="utf-8") as out:
            json.dump(_me(), out)
    except FileExistsError:
        raise Held(_says(mine)) from None
    except OSError as error:
        with contextlib.suppress(OSError):
            mine.unlink()
        raise OSError(error.errno, f"could not write {mine}: {error.strerror}") from error
    if others := [f for f in _files(folder) if f not in (*gone, mine)]:  # somebody came at the same moment
        mine.unlink(missing_ok=True)
        raise Held(_says(others[0]))
    for file in gone:
        file.unlink(missing_ok=True)
    return Lock(mine)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("lock.*"), key=_number)


def _number(file: Path) -> int:
    return int(file.suffix[1:])


def _me() -> dict[str, Any]:
    task = "_".join(filter(None, (os.environ.get(f"SLURM_ARRAY_{k}_ID") for k in ("JOB", "TASK"))))
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "began": _began(os.getpid()),
        "job": task or os.environ.get("SLURM_JOB_ID"),
        "start": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
    }


def _began(pid: int) -> str | None:
    """When a process of this host began, in the kernel's ticks: a number is used again. None: it is not there."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]


def _holder(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}  # being made, or just removed


def _is_gone(file: Path) -> bool:
    """Whether a lock's holder is dead; takes up to LEASE seconds for a holder on another host."""
    holder, me = _holder(file), _me()
    if me["job"] and holder.get("job") == me["job"] and holder["start"] < me["start"]:
        return True
    if holder.get("host") == me["host"] and me["began"] is not None:
        return holder["began"] != _began(holder["pid"])
    seen, since = _touched(file), time.monotonic()
    while time.monotonic() < since + LEASE:
        time.sleep(min(1.0, LEASE / 10))
        if (now := _touched(file)) is None:
            return True  # released
        if now != seen:
            return False
    return True


def _touched(file: Path) -> int | None:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _says(file: Path) -> str:
    holder = _holder(file)
    job = f"job {holder['job']}, " if holder.get("job") else ""
    return (
        f"{file.parent} is in use: {job}process {holder.get('pid')} on {holder.get('host')} is at work on it; wait for "
        "it or end it, then run this again"
    )
