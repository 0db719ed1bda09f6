"""Let a process that is told to end (SIGTERM, SIGHUP) remove its temporary files first."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # kill, timeout, scancel; a terminal that is closed


class Ended(BaseException):
    """Raised in a process that receives SIGTERM or SIGHUP, so that it cleans up before it ends."""


@contextlib.contextmanager
def cleaned_up() -> Iterator[None]:
    """In the with block, SIGTERM and SIGHUP raise Ended; afterwards they end the process.

    This removes temporary files first. A signal that is already ignored or handled is left alone.
    """
    received: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:
            raise Ended

    main = threading.current_thread() is threading.main_thread()
    taken = [number for number in SIGNALS if main and signal.getsignal(number) == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
        if received:
            os.kill(os.getpid(), received[0])
