"""Runs tasks in parallel worker processes, which exit when their parent process ends or is killed.

Workers are forked from a server process that has already imported slow packages such as torch.
"""

import contextlib
import functools
import gc
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import pickle
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from modelsoups.workers.progress import Meter

Task = TypeVar("Task")
Result = TypeVar("Result")
STAGES = ("modelsoups.stages.finetune", "modelsoups.train.trainer", "modelsoups.stages.soup")
PRELOAD = [*STAGES, "open_clip"]
NOT_STARTED, IDLE = -2, -1  # values of a worker's slot, which otherwise is the number of its task
MANAGER_SECONDS = 2  # to wait for the pool's own thread, which then holds none of its semaphores
SHARED_KEPT = 4  # number of shared objects that a worker caches


@dataclass(frozen=True)
class Size:
    """The sizes of tasks: of(task) is a task's number of units; unit is their name, if shown.

    kind(task) names the tasks that have one speed in units, for the estimate of the time left.
    """

    of: Callable[..., float]
    unit: str | None = None
    kind: Callable[..., str] = lambda _: ""


def cores() -> int:
    """Return how many CPU cores this process may use; on a cluster, these are often not all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_count(parallel: int | None) -> int:
    """Return the number of workers: `parallel`, or by default one per GPU or else per CPU core."""
    import torch

    return parallel or torch.cuda.device_count() or cores()


def run_tasks(
    function: Callable[..., Result],
    tasks: Sequence[Task],
    workers: int,
    label: str,
    size: Size | None = None,
    shared: object = None,
) -> Iterator[tuple[Task, Result]]:
    """Run function(task) in worker processes; yield (task, result) as tasks finish.

    size: the number of units of each task, such as images; the largest tasks start first, and tasks
    may report finished units by `advance`. With `shared`, function(shared, task) is called; each worker
    unpickles `shared` only once. Each task starts with one torch thread and even a single worker is
    another process, so results do not depend on `workers`. A task's exception is raised here.
    """
    if not tasks:
        return
    ordered = sorted(tasks, key=size.of, reverse=True) if size else list(tasks)
    count = min(workers, len(ordered))
    sizes = [max(1.0, size.of(task)) if size else 1.0 for task in ordered]
    kinds = [size.kind(task) for task in ordered] if size else None
    meter = Meter(label, sizes, size.unit if size else None, count, kinds)
    content = None if shared is None else pickle.dumps(shared)
    team = _hire(count, workers)
    try:
        waiting: dict[Future[Result], int] = {}
        for number, task in enumerate(ordered):
            waiting[team.pool.submit(_call, function, content, number, task)] = number
        while waiting:
            ended, _ = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            for news in team.news():
                meter.add(*news)
            for future in sorted(ended, key=waiting.__getitem__):  # in the order in which they started
                result, number = future.result(), waiting.pop(future)
                meter.finish(number)
                yield ordered[number], result
            meter.look({slot.value for slot in team.slots} & set(waiting.values()))
            meter.show()
        team.idle = True
    except BrokenProcessPool:
        unfinished = {slot.value for slot in team.slots} & set(waiting.values())
        names = ", ".join(str(ordered[number]) for number in sorted(unfinished)) or "its start"
        why = f"a worker process died (killed, or out of memory) while running {names}"
        raise RuntimeError(f"{label}: {why}; run the same command again to continue") from None
    finally:
        meter.close()
        _release(team)


class _Team:
    """A pool of worker processes; each keeps its current task's number in shared memory."""

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        _start_server()
        self.idle = False
        self.queue = context.Queue()
        self.slots = [context.Value("i", NOT_STARTED) for _ in range(count)]
        self.pool = ProcessPoolExecutor(count, context, _begin, (self.queue, self.slots))

    def news(self) -> Iterator[tuple[int, float, float]]:
        """Yield the workers' progress reports: (task, units done, those that an earlier run did)."""
        with contextlib.suppress(queue.Empty):
            while True:
                yield self.queue.get_nowait()

    def stop(self) -> None:
        """Stop the workers: let them exit if no task is running, otherwise kill them.

        Then drop the semaphores: a process that a signal ends would otherwise leave them to Python's
        resource tracker, which warns.
        """
        processes = list((self.pool._processes or {}).values())
        manager: threading.Thread | None = self.pool._executor_manager_thread  # type: ignore[assignment]
        self.pool.shutdown(wait=self.idle, cancel_futures=True)
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        if manager is not None:
            manager.join(MANAGER_SECONDS)
        del self.pool, self.queue, self.slots
        if not self.idle:
            gc.collect()


def _start_server() -> None:
    """Start the server from which workers are forked, if it is not running.

    It does not import files of the working folder, such as a secrets.py, instead of libraries.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


# The teams of the enclosing `workers_kept`, a context variable so that nested calls of run_tasks find them.
_kept: ContextVar[list[_Team] | None] = ContextVar("kept", default=None)


@contextlib.contextmanager
def workers_kept() -> Iterator[None]:
    """Inside the with block, calls of `run_tasks` reuse workers instead of starting new ones."""
    if _kept.get() is not None:
        yield
        return
    teams: list[_Team] = []
    token = _kept.set(teams)
    try:
        yield
    finally:
        _kept.reset(token)
        for team in teams:
            team.stop()


def _hire(count: int, workers: int) -> _Team:
    """Return a new pool of `count` workers or, inside workers_kept, a reusable one of `workers`."""
    teams = _kept.get()
    if teams is None:
        return _Team(count)
    for team in teams:
        if team.idle and len(team.slots) == workers:
            team.idle = False
            list(team.news())  # discard late reports of earlier tasks
            return team
    teams.append(_Team(workers))
    return teams[-1]


def _release(team: _Team) -> None:
    """Stop a pool of workers, unless its tasks are done and workers_kept keeps it for reuse."""
    teams = _kept.get() or []
    if team in teams:
        if team.idle:
            return
        teams.remove(team)
    team.stop()


class _Doer:
    """The state of a process that runs tasks: how it reports progress, and cached objects."""

    def __init__(self, report: Callable[[tuple[int, float, float]], None], slot: Any = None) -> None:
        self.report, self.slot = report, slot
        self.unpickled = functools.lru_cache(SHARED_KEPT)(pickle.loads)  # by their bytes


_this: _Doer | None = None  # None if it runs no tasks; `advance` is called deep inside


def advance(units: float, resumed: bool = False) -> None:
    """Report from inside a task that `units` are done; `resumed` means by an earlier run."""
    if _this is not None:
        number = 0 if _this.slot is None else _this.slot.value
        _this.report((number, units, units if resumed else 0.0))


@contextlib.contextmanager
def watched(label: str, units: float, unit: str | None = None) -> Iterator[None]:
    """Inside the with block, show the progress that a task in this process reports by `advance`."""
    global _this
    meter = Meter(label, [units], unit)
    meter.look([0])

    def show(news: tuple[int, float, float]) -> None:
        meter.add(*news)
        meter.show()

    _this = _Doer(show)
    try:
        yield
    finally:
        meter.close()
        _this = None


def _begin(news: Any, slots: list[Any]) -> None:
    """Set up a worker process: choose its number and GPU, and make it exit when its parent does."""
    global _this
    news.cancel_join_thread()  # a worker may exit before its last reports are read
    with slots[0].get_lock():
        number = next(i for i, slot in enumerate(slots) if slot.value == NOT_STARTED)
        slots[number].value = IDLE
    _this = _Doer(news.put, slots[number])
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its workers
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _call(function: Callable[..., Result], shared: bytes | None, number: int, task: object) -> Result:
    assert _this is not None
    _this.slot.value = number
    import torch

    torch.set_num_threads(1)
    result = function(task) if shared is None else function(_this.unpickled(shared), task)
    _this.slot.value = IDLE
    return result
