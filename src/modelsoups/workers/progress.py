"""Shows a command's progress: a bar on a terminal, otherwise a printed line every 20 seconds."""

import sys
import time

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

QUIET_SECONDS = 20  # between two lines when the output is not a terminal
START_SECONDS = 2  # before anything is shown


class Meter:
    """Counts and shows finished tasks and units; unit: their name in the speed, if shown."""

    def __init__(self, label: str, tasks: int, units: float, unit: str | None = None) -> None:
        self.label, self.tasks, self.units, self.unit = label, tasks, units, unit
        self.done = self.resumed = 0.0
        self.ended = 0
        self.start = self.printed = time.monotonic()
        self.bar: Progress | None = None

    def add(self, units: float, resumed: float = 0.0) -> None:
        """Add finished units; those `resumed` from an earlier run do not count in the speed."""
        self.done += units
        self.resumed += resumed

    def finish(self, units: float) -> None:
        """Count one task as finished, and add its finished units."""
        self.ended += 1
        self.add(units)

    def text(self) -> str:
        rate = (self.done - self.resumed) / (time.monotonic() - self.start)
        left = f"{_duration((self.units - self.done) / rate)} left" if rate else "starting"
        speed = f", {rate:,.0f} {self.unit}/s" if self.unit and rate else ""
        return f"{self.ended} of {self.tasks}{speed}, {left}"

    def show(self) -> None:
        now = time.monotonic()
        if now - self.start < START_SECONDS:
            return
        if sys.stdout.isatty():
            if self.bar is None:
                columns = (TextColumn(f"{self.label}:"), BarColumn(), TextColumn("{task.description}"))
                self.bar = Progress(*columns, TimeElapsedColumn(), transient=True)
                self.bar.start()
                self.bar.add_task(self.text(), total=self.units)
            self.bar.update(self.bar.task_ids[0], completed=self.done, description=self.text())
        elif now - self.printed >= QUIET_SECONDS:
            self.printed = now
            print(f"{self.label}: {self.text()}", flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()


def _duration(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 60}:{whole % 60:02d}" if whole < 3600 else f"{whole / 3600:.1f} h"
