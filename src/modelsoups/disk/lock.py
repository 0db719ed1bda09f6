"""A lock that lets only one process write to a folder, and that expires if this process dies.

The lock is a file lock.<n> in the folder; the process that created it touches it every few seconds.
Another process may take over the folder, by creating lock.<n+1>, if the first process is dead:

- it no longer exists (checked on the same host, since the same boot, in the same PID namespace:
  two containers may have the same host name and the same process IDs),
- SLURM has restarted its job (filelock's leases cannot recognise this case), or
- the file has not been touched for LEASE seconds, measured by the second process's clock.
"""

import contextlib
import functools
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BEAT = 5.0  # seconds between two touches of the file
LEASE = 60.0  # seconds without a touch after which a holder of another place counts as dead


class Held(ValueError):
    """Raised if another process has locked a folder that this process needs."""


class Lock:
    """A lock that this process has on a folder; a thread touches its file until `release`."""

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
        """Raise Held if another process has taken over the lock; call it before writing."""
        if max(map(_number, lock_files(self.file.parent)), default=0) > self.number:
            why = "has been taken over by another process, because this one seemed dead"
            raise Held(f"{self.file.parent} {why}; let that process finish, or end it and rerun this command")

    def release(self) -> None:
        self._end.set()
        self._beating.join()
        self.file.unlink(missing_ok=True)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[Lock]:
    """Lock a folder inside the with block; raise Held if another live process has locked it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = _take(folder)
    try:
        yield lock
    finally:
        lock.release()


def lock_files(folder: Path) -> list[Path]:
    """Return a folder's lock files, sorted by number; usually there is at most one."""
    return sorted(folder.glob("lock.*"), key=_number)


def in_use(folder: Path) -> bool:
    """Return at once whether a process that has locked the folder seems to be alive.

    In another place it does if it touched its lock less than LEASE seconds ago.
    """
    return any(map(_seems_alive, lock_files(folder)))


def _seems_alive(file: Path) -> bool:
    holder, this = _holder(file), _this_process()
    if holder.get("place") == this["place"] and this["began"] is not None:
        return bool(holder["began"] == began(holder["pid"]))
    touched = _touched(file)
    return touched is not None and abs(time.time() - touched / 1e9) < LEASE  # also for a clock that is ahead


def _take(folder: Path) -> Lock:
    dead = lock_files(folder)
    for file in dead:
        if not _is_dead(file):
            raise Held(_describe(file))
    mine = folder / f"lock.{max(map(_number, dead), default=0) + 1}"
    try:
        with open(mine, "x", encoding="utf-8") as out:
            json.dump(_this_process(), out)
    except FileExistsError:
        raise Held(_describe(mine)) from None
    except OSError as error:
        with contextlib.suppress(OSError):
            mine.unlink()
        raise OSError(error.errno, f"could not write {mine}: {error.strerror}") from error
    if others := set(lock_files(folder)) - {*dead, mine}:  # another process tried at the same time
        mine.unlink(missing_ok=True)
        raise Held(_describe(min(others, key=_number)))
    for file in dead:
        file.unlink(missing_ok=True)
    return Lock(mine)


def _number(file: Path) -> int:
    return int(file.suffix[1:])


def _this_process() -> dict[str, Any]:
    array, task = (os.environ.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK"))
    return {
        "host": socket.gethostname(),
        "place": place(),
        "pid": os.getpid(),
        "began": began(os.getpid()),
        "job": "_".join(filter(None, (array, task))) or os.environ.get("SLURM_JOB_ID"),
        "start": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
    }


@functools.cache
def place() -> str:
    """Return a hash of host name, boot and PID namespace: within these, a process ID is unique."""
    facts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with contextlib.suppress(OSError):
        facts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]


def began(pid: int) -> str | None:
    """Return a process's start time in clock ticks since the boot; None if it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]


def _holder(file: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(file.read_text(encoding="utf-8")))
    return {}  # not written yet, or just removed


def _is_dead(file: Path) -> bool:
    """Return whether a lock's process is dead; takes up to 60 seconds if it is of another place."""
    holder, this = _holder(file), _this_process()
    if this["job"] and holder.get("job") == this["job"] and holder["start"] < this["start"]:
        return True
    if holder.get("place") == this["place"] and this["began"] is not None:
        return holder["began"] != began(holder["pid"])
    touched, begun = _touched(file), time.monotonic()
    while time.monotonic() < begun + LEASE:
        time.sleep(min(1.0, LEASE / 10))
        if (now := _touched(file)) is None:
            return True  # released
        if now != touched:
            return False
    return True


def _touched(file: Path) -> int | None:
    with contextlib.suppress(FileNotFoundError):
        return file.stat().st_mtime_ns
    return None


def _describe(file: Path) -> str:
    holder = _holder(file)
    job = f"job {holder['job']}, " if holder.get("job") else ""
    process = f"{job}process {holder.get('pid')} on {holder.get('host')}"
    return f"{file.parent} is in use: {process} is working in it; wait for it or end it, then rerun this command"
