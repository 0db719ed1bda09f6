"""`fail`, which prints an error and exits."""

import sys
from typing import NoReturn

from modelsoups.disk.terminal import printable


def fail(message: str, status: int = 1) -> NoReturn:
    """Print "modelsoups: error: <message>" on stderr, and exit with this status."""
    print(f"modelsoups: error: {printable(message)}", file=sys.stderr, flush=True)
    raise SystemExit(status)
