"""One pass over the bytes of many checkpoints, a piece of each at a time, on as many threads as torch has.

Memory: WINDOW bytes of the files' pages, which are the system's cache, whatever the number of checkpoints and their
size, and what a thread has for its work (`core.blocks.Room`).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from modelsoups.checkpoints.formats import Checkpoint
from modelsoups.weights.fast.blocks import Piece, Rows

Visit = Callable[[Rows, int, Piece], None]
T = TypeVar("T")
WINDOW = 2**28


def pieces(checkpoint: Checkpoint, keys: Iterable[str], step: int) -> list[Piece]:
    """The pieces (of `step` elements) of these tensors, in their order; a tensor without elements has none."""
    sizes = {key: math.prod(checkpoint.entries[key].shape) for key in keys}
    return [(key, start, min(start + step, n)) for key, n in sizes.items() for start in range(0, n, step)]


def each_piece(checkpoints: Sequence[Checkpoint], todo: Sequence[Piece], worker: Callable[[], Visit]) -> None:
    """visit(rows, number, piece) of every piece, begun in their order; each thread's `visit` is what `worker` gives it.

    The first exception ends it.
    """
    if not todo:  # no threads for nothing
        return
    full = windows(checkpoints, todo)

    def forgetting() -> Callable[[int], None]:
        visit, rows = worker(), Rows(checkpoints)

        def one(number: int) -> None:
            visit(rows, number, todo[number])
            if number in full:
                for checkpoint in checkpoints:
                    checkpoint.forget()

        return one

    side_by_side(forgetting, range(len(todo)))


def windows(checkpoints: Sequence[Checkpoint], todo: Sequence[Piece]) -> set[int]:
    """The numbers of the pieces with which another WINDOW bytes, or all, have been read."""
    read, found = 0, {len(todo) - 1}
    for number, (key, start, stop) in enumerate(todo):
        read += (stop - start) * checkpoints[0].entries[key].dtype.itemsize * len(checkpoints)
        if read >= WINDOW:
            found.add(number)
            read = 0
    return found


def side_by_side(worker: Callable[[], Callable[[T], None]], tasks: Iterable[T]) -> None:
    """Run tasks, taken in order, by as many threads as torch has, each with what a call of `worker` gives it.

    The first exception ends it.
    """
    lock, failed, threads = threading.Lock(), threading.Event(), torch.get_num_threads()
    left: Iterator[T] = iter(tasks)

    def work() -> None:
        torch.set_num_threads(1)  # of this thread alone: the cores are taken
        try:
            function = worker()
            while not failed.is_set():
                with lock:
                    task = next(left, None)
                if task is None:
                    return
                function(task)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work) for _ in range(threads)]:
            done.result()
