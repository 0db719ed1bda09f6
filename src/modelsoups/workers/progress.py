"""Shows a command's progress: a bar on a terminal, otherwise lines that become rarer while nothing is known.

The time left is that of a schedule: running tasks go on, waiting ones start in order on the worker
that is free first, and each takes its size times the seconds per unit seen so far in its kind.
"""

import heapq
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

QUIET_SECONDS = 20  # between two lines when the output is not a terminal
START_SECONDS = 2  # before anything is shown
OVERDUE = 0.1  # what is left of a task that takes longer than expected, as a share of its time so far
LEAST_SEEN = 0.02  # share of the units from which on the time left is estimated


@dataclass
class Part:
    """One task: its size in units, its kind, what is done, and when it began and ended (seconds)."""

    size: float
    kind: str = ""
    done: float = 0.0
    resumed: float = 0.0
    began: float | None = None
    ended: float | None = None


class Meter:
    """Counts finished tasks and units, and shows them with the time left.

    sizes: units of each task, in the order in which tasks start on `workers` processes. kinds: the
    kind of each task; those of one kind have the same speed. unit: name of the units, if shown.
    """

    def __init__(
        self,
        label: str,
        sizes: Sequence[float],
        unit: str | None = None,
        workers: int = 1,
        kinds: Sequence[str] | None = None,
    ) -> None:
        self.label, self.unit, self.workers = label, unit, workers
        self.parts = [Part(size, kind) for size, kind in zip(sizes, kinds or [""] * len(sizes), strict=True)]
        self.units = sum(sizes)
        self.start = self.printed = self.looked = time.monotonic()
        self.bar: Progress | None = None

    def look(self, running: Iterable[int]) -> None:
        """Note which tasks are running now; called often, since this says when they began."""
        now = time.monotonic()
        for number in running:
            if self.parts[number].began is None:
                self.parts[number].began = now
        self.looked = now

    def add(self, number: int, units: float, resumed: float = 0.0) -> None:
        """Add finished units of a task; those `resumed` from an earlier run do not count in the speed."""
        part = self.parts[number]
        added = min(units, part.size - part.done)
        part.done += added
        part.resumed += min(resumed, added)

    def finish(self, number: int) -> None:
        """Mark a task as finished; if it reported no units, all are counted."""
        part = self.parts[number]
        part.ended = time.monotonic()
        part.began = self.looked if part.began is None else part.began
        part.done = part.done or part.size

    def left(self) -> float | None:
        """Return the estimate of the seconds left; None while too little is known."""
        now = time.monotonic()
        speeds = self._seconds_per_unit(now)
        if not speeds:
            return None
        overall = speeds[None]
        free = [0.0] * self.workers  # when each worker has nothing more to do, in seconds from now
        waiting = [part for part in self.parts if part.began is None and part.ended is None]
        running = [part for part in self.parts if part.began is not None and part.ended is None]
        for part in (*running, *waiting):
            whole = (part.size - part.done) * speeds.get(part.kind, overall)
            if part.began is not None and not part.done:
                spent = now - part.began
                whole = max(whole - spent, OVERDUE * spent)
            heapq.heapreplace(free, free[0] + whole)
        return max(free)

    def _seconds_per_unit(self, now: float) -> dict[str | None, float]:
        """Return the seconds that a unit takes in each kind, None: in all; empty if too little is done."""
        seconds: dict[str | None, float] = defaultdict(float)
        units: dict[str | None, float] = defaultdict(float)
        for part in self.parts:
            done = part.done - part.resumed
            if part.began is not None and done > 0:
                for kind in (part.kind, None):
                    seconds[kind] += (part.ended or now) - part.began
                    units[kind] += done
        if units[None] < LEAST_SEEN * self.units:
            return {}
        return {kind: seconds[kind] / units[kind] for kind in units}

    def text(self) -> str:
        ended = sum(part.ended is not None for part in self.parts)
        elapsed = time.monotonic() - self.start
        done = sum(part.done - part.resumed for part in self.parts)
        left = self.left()
        told = f"{duration(elapsed)} so far" if left is None else f"about {duration(left)} left"
        count = [f"{ended} of {len(self.parts)}"] if len(self.parts) > 1 else []
        speed = [f"{done / elapsed:,.0f} {self.unit}/s"] if self.unit and done and elapsed else []
        return ", ".join([*count, *speed, told])

    def show(self) -> None:
        now = time.monotonic()
        if now - self.start < START_SECONDS:
            return
        if sys.stdout.isatty():
            text, done = self.text(), sum(part.done if part.ended is None else part.size for part in self.parts)
            if self.bar is None:
                columns = (TextColumn(f"{self.label}:"), BarColumn(), TextColumn("{task.description}"))
                self.bar = Progress(*columns, TimeElapsedColumn(), transient=True)
                self.bar.start()
                self.bar.add_task(text, total=self.units)
            self.bar.update(self.bar.task_ids[0], completed=done, description=text)
        elif now - self.printed >= self._quiet():
            self.printed = now
            print(f"{self.label}: {self.text()}", flush=True)

    def _quiet(self) -> float:
        """Return the seconds between two lines: while nothing is known, as long as it has lasted so far."""
        return QUIET_SECONDS if self.left() is not None else max(QUIET_SECONDS, self.printed - self.start)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()


def duration(seconds: float) -> str:
    """Return a duration in words, as exact as an estimate can be: "40 s", "7 min", "1.5 h"."""
    if seconds < 60:
        return f"{5 * max(1, round(seconds / 5)) if seconds >= 10 else max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
