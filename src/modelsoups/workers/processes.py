"""Tasks side by side in worker processes, with one line of progress.

Workers are forked from a server that has imported the stages once (torch, timm and open_clip take seconds). They end
with their parent, however it dies; a worker that dies ends the run with an error that names its task.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import os
import pickle
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

Task = TypeVar("Task")
Made = TypeVar("Made")
Shared = TypeVar("Shared")
PRELOAD = [
    "modelsoups.stages.finetune",
    "modelsoups.train.trainer",
    "modelsoups.stages.soup",
    "modelsoups.experiment.sets",
    "open_clip",
]
NOWHERE, BEGUN = -2, -1  # of a worker that has no task: it is not there, it is
QUIET_SECONDS = 20  # between lines of progress when the output is not a terminal
_news: Any = None  # a worker's queue to its parent: (units done, units resumed)
_at: Any = (
    None  # a worker's word in shared memory, with the number of its task: it is there even if the worker dies at once
)


def cores() -> int:
    """Cores that this process may use: a cluster often gives a job fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_count(parallel: int | None) -> int:
    """Processes side by side: `parallel` if it is given, else one a GPU where there are any, else one a core."""

    return parallel or torch.cuda.device_count() or cores()


def advance(units: float, resumed: bool = False) -> None:
    """Called by a task: so many of its units (images) are done since the last call, or were in an earlier run."""
    if _news is not None:
        _news.put((units, units if resumed else 0.0))


def run_tasks(
    function: Callable[[Task], Made],
    tasks: Sequence[Task],
    workers: int,
    label: str,
    size: Callable[[Task], float] | None = None,
    threads: int = 1,
) -> Iterator[tuple[Task, Made]]:
    """Yield (task, function(task)) as tasks end, the largest begun first.

    size gives a task's units, of which the task reports by `advance`; without it a task is one unit. Results do not
    depend on `workers`: each runs with `threads` torch threads, and one worker is a process too. A task's exception
    is raised here after the others have been stopped.
    """
    if not tasks:
        return
    ordered = sorted(tasks, key=size, reverse=True) if size else list(tasks)
    meter = Meter(label, len(ordered), sum(map(size, ordered)) if size else len(ordered), size is not None)
    team = _hired(min(workers, len(ordered)), workers, threads)
    try:
        waiting: dict[Future[Made], int] = {team.pool.submit(_call, function, i, t): i for i, t in enumerate(ordered)}
        while waiting:
            ended, _ = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            _drain(team.news, meter)
            for future in sorted(ended, key=waiting.__getitem__):  # in the order of their beginning
                result = future.result()
                task = ordered[waiting.pop(future)]
                meter.finish(1.0 if size is None else 0.0)
                yield task, result
            meter.show()
        team.idle = True
    except BrokenProcessPool:
        names = ", ".join(str(ordered[i]) for i in sorted({word.value for word in team.at} & set(waiting.values())))
        raise RuntimeError(
            f"{label}: a worker process died (killed, or out of memory) at {names or 'its start'}; "
            "run the same command again to continue"
        ) from None
    finally:
        meter.close()
        if not (team.idle and team in _kept):
            team.stop()


def sharing(function: Callable[[Shared, Task], Made], shared: Shared) -> Callable[[Task], Made]:
    """A function of tasks for `run_tasks` that calls function(shared, task).

    Each worker process unpickles `shared` once and keeps it, so what it has loaded serves later tasks too.
    """
    return functools.partial(_call_shared, function, pickle.dumps(shared))


def _call_shared(function: Callable[[Any, Task], Made], pickled: bytes, task: Task) -> Made:
    return function(_unpickled(pickled), task)


@functools.lru_cache(maxsize=2)
def _unpickled(pickled: bytes) -> Any:
    return pickle.loads(pickled)


class _Team:
    """Worker processes with their queue of news and, of each, the word that says what it is at."""

    def __init__(self, count: int, threads: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        self.threads, self.idle = threads, True
        self.news = context.Queue()
        self.at = [context.Value("i", NOWHERE) for _ in range(count)]
        self.pool = ProcessPoolExecutor(count, context, _begin, (self.news, self.at, threads))

    def stop(self) -> None:
        """End the processes: those that are idle by themselves, others at once."""
        processes = list((self.pool._processes or {}).values())
        self.pool.shutdown(wait=self.idle, cancel_futures=True)
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        if self in _kept:
            _kept.remove(self)


_kept: list[_Team] = []  # teams that outlive their tasks
_keeping = False


def _hired(count: int, workers: int, threads: int) -> _Team:
    """A team that is kept, else a new one."""
    team = next((t for t in _kept if t.idle and t.threads == threads and len(t.at) == workers), None)
    if team is None:
        team = _Team(workers if _keeping else count, threads)
        if _keeping:
            _kept.append(team)
    team.idle = False
    with contextlib.suppress(queue.Empty):  # late news of the tasks before
        while True:
            team.news.get_nowait()
    return team


@contextlib.contextmanager
def workers_kept() -> Iterator[None]:
    """Within, the processes of one `run_tasks` are those of the next, with the models and images they have loaded."""
    global _keeping
    _keeping = True
    try:
        yield
    finally:
        _keeping = False
        for team in list(_kept):
            team.stop()


@contextlib.contextmanager
def watched(label: str, units: float, images: bool = True) -> Iterator[None]:
    """Show the progress of one task that this process does itself; the task reports its units by `advance`."""
    global _news
    _news = _Shown(Meter(label, 1, units, images))
    try:
        yield
    finally:
        _news.meter.close()
        _news = None


class _Shown:
    """Takes news as a worker's queue does, and shows them at once."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def put(self, news: tuple[float, float]) -> None:
        self.meter.add(*news)
        self.meter.show()


def _begin(news: Any, at: list[Any], threads: int) -> None:
    """Set up a worker: its queue, its word, its threads, its GPU if there are any, its end when the parent ends."""
    global _news, _at

    _news = news
    _news.cancel_join_thread()  # a worker that ends does not wait for its last news to be read
    torch.set_num_threads(threads)
    with at[0].get_lock():
        number = next(i for i, word in enumerate(at) if word.value == NOWHERE)
        at[number].value = BEGUN
    _at = at[number]
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its workers
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _call(function: Callable[[Task], Made], number: int, task: Task) -> Made:
    _at.value = number
    made = function(task)
    _at.value = BEGUN
    return made


def _drain(news: Any, meter: Meter) -> None:
    """Hand the news since the last look to the meter."""
    with contextlib.suppress(queue.Empty):
        while True:
            meter.add(*news.get_nowait())


class Meter:
    """Progress on a terminal as a bar, elsewhere as a line every QUIET_SECONDS; nothing for the first two seconds."""

    def __init__(self, label: str, tasks: int, units: float, images: bool) -> None:
        self.label, self.tasks, self.units, self.images = label, tasks, units, images
        self.done = self.resumed = 0.0
        self.ended = 0
        self.start = self.spoken = time.monotonic()
        self.bar: Progress | None = None

    def add(self, units: float, resumed: float = 0.0) -> None:
        """So many units more are done, of which an earlier run did `resumed`: they tell nothing of the speed."""
        self.done += units
        self.resumed += resumed

    def finish(self, units: float) -> None:
        self.ended += 1
        self.add(units)

    def text(self) -> str:
        elapsed = time.monotonic() - self.start
        rate = (self.done - self.resumed) / elapsed
        left = f"{_minutes((self.units - self.done) / rate)} left" if rate else "starting"
        speed = f", {rate:,.0f} images/s" if self.images and rate else ""
        return f"{self.ended} of {self.tasks}{speed}, {left}"

    def show(self) -> None:
        now = time.monotonic()
        if now - self.start < 2:
            return
        if sys.stdout.isatty():
            if self.bar is None:
                columns = (TextColumn(f"{self.label}:"), BarColumn(), TextColumn("{task.description}"))
                self.bar = Progress(*columns, TimeElapsedColumn(), transient=True)
                self.bar.start()
                self.bar.add_task(self.text(), total=self.units)
            self.bar.update(self.bar.task_ids[0], completed=self.done, description=self.text())
        elif now - self.spoken >= QUIET_SECONDS:
            self.spoken = now
            print(f"{self.label}: {self.text()}", flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()


def _minutes(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 60}:{whole % 60:02d}" if whole < 3600 else f"{whole / 3600:.1f} h"
