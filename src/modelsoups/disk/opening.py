"""Opens files that others made: regular files only, as many as the system allows."""

import errno
import os
import resource
import stat
from pathlib import Path

SPARE, LEAST = 64, 8  # descriptors left when the limit is raised, and when it cannot be raised


def check_regular(path: Path) -> None:
    """Raise OSError unless a path leads to a regular file: opening a pipe or device may never end."""
    _check(path, os.stat(path).st_mode)


def open_to_read(path: Path) -> int:
    """A descriptor of a regular file; raises OSError for anything else.

    The limit of open files is raised as far as the system allows once it is nearly reached: the
    usual one of 1,024 is less than the shards of many checkpoints.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe does not block
    except OSError as error:
        if error.errno == errno.EMFILE:
            raise _too_many(path) from error
        raise
    try:
        following = os.dup(descriptor)  # the one that a memory map will take and keep
        os.close(following)
        if following >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE:
            _raise_limit()
        if following >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - LEAST:
            raise _too_many(path)
        _check(path, os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _raise_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _too_many(path: Path) -> OSError:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    way_out = "mix fewer at a time, or have the limit raised (ulimit -Hn shows it)"
    return OSError(errno.EMFILE, f"this process may open {limit:,} files at a time; {way_out}", str(path))


def _check(path: Path, mode: int) -> None:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    if not stat.S_ISREG(mode):
        what = kinds.get(stat.S_IFMT(mode), "a device")
        raise OSError(errno.EINVAL, f"it is {what}, not a regular file; give a regular file", str(path))
