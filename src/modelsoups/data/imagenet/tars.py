"""Lists the files in an uncompressed tar with their byte offsets, without extracting anything.

A tar that does not end in a block of zeros is rejected as truncated; Python's tarfile accepts it.
So is one whose headers have negative sizes or are larger than any that an archive of images needs.
"""

import contextlib
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from tarfile import BLOCKSIZE
from typing import BinaryIO, NamedTuple, cast

MOST_HEADERS = 2**20  # bytes before a member: long names, PAX records; tarfile holds them in memory


class Member(NamedTuple):
    """A file in a tar: its name, and the offset and size of its content in bytes."""

    name: str
    offset: int
    size: int


class _Headers:
    """A tar from which tarfile reads headers: at most MOST_HEADERS bytes for one member."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.tell, self.seek = file, file.tell, file.seek
        self.left = MOST_HEADERS

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.left:
            raise tarfile.ReadError(f"a header at byte {self.tell():,} has a size of {size:,} bytes")
        self.left -= size
        return self.file.read(size)


def members(path: Path, start: int = 0, size: int | None = None) -> Iterator[Member]:
    """Yield the files of a tar, or of an inner tar that is its bytes [start, start + size).

    Raises ValueError if the tar is damaged or compressed, or has an unsafe member such as a link.
    """
    end = path.stat().st_size if size is None else start + size
    try:
        with open(path, "rb") as file:
            file.seek(start)
            headers = _Headers(file)
            with _opened(headers) as archive:
                while (info := _next(archive, headers)) is not None:
                    if info.isdir():
                        continue
                    _check(path, info)
                    if info.offset_data + info.size > end:
                        raise tarfile.ReadError("unexpected end of data")
                    yield Member(info.name, info.offset_data, info.size)
                file.seek(archive.offset)
                zeros = file.read(BLOCKSIZE) == bytes(BLOCKSIZE)
                if archive.offset + BLOCKSIZE > end or not zeros:
                    raise tarfile.ReadError(f"the end marker is missing at byte {archive.offset:,}")
    except (tarfile.TarError, EOFError) as error:
        inside = f" (the tar inside it at byte {start:,})" if size is not None else ""
        compressed = path.suffix in (".gz", ".tgz", ".bz2", ".xz", ".zip")
        way_out = "unpack it first" if compressed else "download it again and compare its checksum"
        raise ValueError(f"{path}{inside} is truncated or not an uncompressed tar: {error}; {way_out}") from error


def _opened(headers: _Headers) -> tarfile.TarFile:
    with _damage():
        return tarfile.open(fileobj=cast(BinaryIO, headers), mode="r:")


def _next(archive: tarfile.TarFile, headers: _Headers) -> tarfile.TarInfo | None:
    """Return a tar's next member, None at its end; ReadError if its headers make no sense."""
    headers.left = MOST_HEADERS
    with _damage():
        info = archive.next()
    archive.members = []  # type: ignore[attr-defined]  # it would keep them all
    if info is not None and info.size < 0:
        raise tarfile.ReadError(f"member {info.name!r} has a size of {info.size:,} bytes")
    return info


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    """Turn what tarfile raises for headers that make no sense into ReadError."""
    try:
        yield
    except (ValueError, IndexError, OverflowError, RecursionError, OSError) as error:
        reason = str(error).partition(" (")[0] if not isinstance(error, RecursionError) else "too many headers in a row"
        raise tarfile.ReadError(f"a header is damaged ({reason})") from error


def _check(path: Path, info: tarfile.TarInfo) -> None:
    name, problem = PurePosixPath(info.name), None
    if name.is_absolute() or ".." in name.parts or "\\" in info.name:
        problem = "has an unsafe path (absolute, with .. or a backslash)"
    elif not info.isreg() or info.issparse():
        problem = "is a link or a device"
    if problem:
        raise ValueError(f"{path}: member {info.name!r} {problem}; this is not the original archive, download it again")
