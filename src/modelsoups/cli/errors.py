"""How a command ends when something is wrong."""

import sys
from typing import NoReturn

from modelsoups.disk.terminal import printable


def fail(message: str, status: int = 1) -> NoReturn:
    """End the command with one line on stderr."""
    print(f"modelsoups: error: {printable(message)}", file=sys.stderr, flush=True)
    raise SystemExit(status)
