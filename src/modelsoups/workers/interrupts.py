"""Being told to end: what is half made is removed first."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # kill, timeout, scancel; a terminal that is closed


class Ended(BaseException):
    """This process was told to end."""


@contextlib.contextmanager
def cleaned_up() -> Iterator[None]:
    """Within, a signal to end raises Ended; then the process ends by that signal, as it would have.

    Without it, temporary files would stay. Signals that are ignored or handled already are left.
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
