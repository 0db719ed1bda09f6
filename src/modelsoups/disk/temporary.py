"""Temporary files and folders: each belongs to one process, and is removed if this process died.

A name is ".<final name>.<machine>-<process ID>-<start time>-<random>.tmp". <machine> is
`lock.place`, because a process ID identifies a process only there.
"""

import contextlib
import os
import re
import secrets
import shutil
import time
from pathlib import Path

from modelsoups.disk.lock import began, place

OURS = re.compile(r"\..*\.([0-9a-f]{8})-(\d+)-(\w+)-[0-9a-f]{8}\.tmp", re.DOTALL)
LONGEST = 255  # bytes of a name on common file systems
LONE = 24 * 3600.0  # seconds unchanged until one of another place or user counts as left behind
_tidied: set[Path] = set()


def beside(path: Path) -> Path:
    """Return an unused temporary path beside `path`; the first call in a folder also tidies it."""
    folder = path.parent
    if folder.absolute() not in _tidied:
        _tidied.add(folder.absolute())
        tidy(folder)
    pid = os.getpid()
    while True:
        end = f".{place()}-{pid}-{began(pid)}-{secrets.token_hex(4)}.tmp"
        kept = os.fsencode(path.name)[: LONGEST - 1 - len(end)]
        found = folder / f".{os.fsdecode(kept)}{end}"
        if not os.path.lexists(found):
            return found


def tidy(folder: Path) -> None:
    """Remove temporary files of ended processes, or a day old from other machines or users."""
    with contextlib.suppress(OSError), os.scandir(folder) as found:
        for entry in found:
            if (match := OURS.fullmatch(entry.name)) and _left_behind(entry, *match.groups()):
                remove(Path(entry.path))


def remove(path: Path) -> None:
    """Remove a file or folder; do nothing if it is missing or may not be removed."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _left_behind(entry: "os.DirEntry[str]", where: str, pid: str, start: str) -> bool:
    with contextlib.suppress(OSError):
        facts = entry.stat(follow_symlinks=False)
        if where == place() and facts.st_uid == os.geteuid():  # /proc may hide the processes of other users
            return str(began(int(pid))) != start
        return time.time() - facts.st_mtime > LONE
    return False
