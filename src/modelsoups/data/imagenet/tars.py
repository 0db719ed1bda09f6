"""Lists the files in an uncompressed tar with their byte offsets, without extracting anything.

A tar that does not end in a block of zeros is rejected as truncated; Python's tarfile accepts it.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from tarfile import BLOCKSIZE
from typing import NamedTuple


class Member(NamedTuple):
    """A file in a tar: its name, and the offset and size of its content in bytes."""

    name: str
    offset: int
    size: int


def members(path: Path, start: int = 0, size: int | None = None) -> Iterator[Member]:
    """Yield the files of a tar, or of an inner tar that is its bytes [start, start + size).

    Raises ValueError if the tar is damaged or compressed, or has an unsafe member such as a link.
    """
    end = path.stat().st_size if size is None else start + size
    try:
        with open(path, "rb") as file:
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (info := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined]  # it would keep them all
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


def _check(path: Path, info: tarfile.TarInfo) -> None:
    name, problem = PurePosixPath(info.name), None
    if name.is_absolute() or ".." in name.parts or "\\" in info.name:
        problem = "has an unsafe path (absolute, with .. or a backslash)"
    elif not info.isreg() or info.issparse():
        problem = "is a link or a device"
    if problem:
        raise ValueError(f"{path}: member {info.name!r} {problem}; this is not the original archive, download it again")
