"""Let a process that is told to end (Ctrl-C, SIGTERM, SIGHUP) remove its temporary files first."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # kill, timeout, scancel; a terminal that is closed
_received: list[int] = []  # signals that came within `cleaned_up`


class Ended(BaseException):
    """Raised in a process that receives SIGTERM or SIGHUP, so that it cleans up before it ends."""


def _end(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    if len(_received) == 1:
        raise Ended


@contextlib.contextmanager
def cleaned_up() -> Iterator[None]:
    """In the with block, SIGTERM and SIGHUP raise Ended; afterwards they end the process.

    This removes temporary files first. Ctrl-C raises KeyboardInterrupt, as always, and `check`
    raises it again. A signal that is already ignored or handled is left alone.
    """

    main = threading.current_thread() is threading.main_thread()
    usual = dict.fromkeys(SIGNALS, signal.SIG_DFL) | {signal.SIGINT: signal.default_int_handler}
    taken = [number for number, handler in usual.items() if main and signal.getsignal(number) == handler]
    for number in taken:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, usual[number])
        deadly = [number for number in _received if number in SIGNALS]
        if taken:
            _received.clear()
        if deadly:
            os.kill(os.getpid(), deadly[0])


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """In the with block, within `cleaned_up`, the same signals end the process without exceptions.

    This is for imports: they may ignore an exception, and they leave no files to remove.
    """
    taken = [number for number in (*SIGNALS, signal.SIGINT) if signal.getsignal(number) == _end]
    for number in taken:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, _end)


def interrupted() -> bool:
    """Return whether a signal came within `cleaned_up`, even if its exception was lost."""
    return bool(_received)


def check() -> None:
    """Raise KeyboardInterrupt or Ended again if a signal came within `cleaned_up`.

    Python ignores an exception that a signal raises within `__del__` or a weakref's callback, and
    imports run many of these. Long work calls this, so that it stops nevertheless.
    """
    if _received:
        raise KeyboardInterrupt if _received[0] == signal.SIGINT else Ended
