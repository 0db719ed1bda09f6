"""Where the members of an uncompressed tar lie. Nothing is ever extracted: images are read in place.

A tar that does not end as tars end (two blocks of zeros) is truncated or damaged, also where Python's tarfile takes
it for whole.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

BLOCK = 512


class Member(NamedTuple):
    """A regular file: its name inside the tar, and where its bytes lie in the tar file."""

    name: str
    offset: int
    size: int


def members(path: Path, start: int = 0, size: int | None = None) -> Iterator[Member]:
    """The regular files of a tar in order, or of one that lies inside another at [start, start + size).

    Raises ValueError naming the tar, and the member where there is one, when it is truncated, damaged or compressed,
    and for a member whose name climbs out of the tar or that is a link or device: such a tar is not to be trusted.
    """
    end = path.stat().st_size if size is None else start + size
    try:
        with open(path, "rb") as file:
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (info := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined]  # else it keeps all of them
                    if info.isdir():
                        continue
                    _check(path, info)
                    if info.offset_data + info.size > end:
                        raise tarfile.ReadError("unexpected end of data")
                    yield Member(info.name, info.offset_data, info.size)
                file.seek(archive.offset)
                if archive.offset + BLOCK > end or file.read(BLOCK) != bytes(BLOCK):
                    raise tarfile.ReadError(f"no end of archive at byte {archive.offset:,}")
    except (tarfile.TarError, EOFError) as error:
        inside = f" (the tar inside it at byte {start:,})" if size is not None else ""
        raise ValueError(
            f"{path}{inside} is truncated or not an uncompressed tar: {error}; {_way_out(path)}"
        ) from error


def _check(path: Path, info: tarfile.TarInfo) -> None:
    name = PurePosixPath(info.name)
    if name.is_absolute() or ".." in name.parts or "\\" in info.name:
        raise ValueError(f"{path}: member {info.name!r} climbs out of its folder; this is not an original archive")
    if not info.isreg() or info.issparse():
        raise ValueError(f"{path}: member {info.name!r} is a link or a device; this is not an original archive")


def _way_out(path: Path) -> str:
    if path.suffix in (".gz", ".tgz", ".bz2", ".xz", ".zip"):
        return "unpack it first"
    return "download it again and compare its checksum"
