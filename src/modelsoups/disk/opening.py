"""Open regular files for reading, and raise the limit of open files where that is necessary."""

import contextlib
import errno
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

MOST_TEXT = 2**25  # bytes of an index or configuration, which is read as a whole
SPARE, LEAST = 64, 8  # descriptors left when the limit is raised, and when it cannot be raised


def irregular(mode: int) -> str | None:
    """Return why a file mode (st_mode) is refused ("it is a pipe ..."), None if regular."""
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return f"it is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a regular file"


def open_to_read(path: Path) -> int:
    """Return a descriptor of a file opened for reading; raise OSError unless it is a regular file.

    If the process nears its limit of open files (usually 1,024), the limit is raised to the hard
    limit, because the checkpoints of a soup may consist of more files.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # no wait on a pipe
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
        if what := irregular(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, f"{what}; give a regular file", str(path))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def text_of(path: Path) -> str:
    """Return the text of a small UTF-8 file; ValueError if it has more than MOST_TEXT bytes.

    Raises OSError if it is not a regular file, as `open_to_read` does.
    """
    with open(open_to_read(path), encoding="utf-8") as file:
        if (size := os.fstat(file.fileno()).st_size) > MOST_TEXT:
            raise ValueError(f"{path} has {size:,} bytes, but is read only up to {MOST_TEXT:,}")
        return file.read()


@contextlib.contextmanager
def utf8_name(path: Path) -> Iterator[Path]:
    """Yield a path of the file in valid UTF-8 (or /dev/fd/N) for libraries that accept no other."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        descriptor = open_to_read(path)
        try:
            yield Path(f"/dev/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return
    yield path


def _raise_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _too_many(path: Path) -> OSError:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    way_out = "mix fewer checkpoints at a time, or ask for a higher limit (see ulimit -Hn)"
    return OSError(errno.EMFILE, f"at most {limit:,} files may be open at a time; {way_out}", str(path))
