"""Decoded images that the training runs of one machine share, so that each image is decoded only once.

Runs that train side by side with one order of images (recipe.order_seed) need the same images at
about the same time. The first one that needs an image decodes it into a slot of a file in memory
and holds the slot's lock meanwhile; the others wait and read it. What a run reads is what it would
have decoded, so a run's result does not depend on the others. A run that is far ahead waits, so
that the others come near again; a killed run loses its locks, and nobody waits for it.
"""

import fcntl
import os
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

Part = bytes | memoryview
SLOT = 3 * 2**20  # bytes of a slot; a larger image is not shared. Memory is taken only for what is written.
MEMBERS = 256  # runs that share a file
STALLED = 30.0  # seconds after which a run that does not move is not waited for
HEADER = struct.Struct("<qqq")  # epoch, place in the epoch's order, bytes of the image
ROW = struct.Struct("<q")  # images that a run has trained on; -1: the row is free
TABLE = MEMBERS * ROW.size  # bytes of the rows, at the start of the file


@contextmanager
def shared_file(slots: int) -> Iterator[Path]:
    """Make a file for `slots` images; yield the path by which other processes open it. None is left behind.

    A run may be half as many images ahead of another one; what it loads in advance should fit into the other half.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("modelsoups")
        path = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    else:
        descriptor, name = tempfile.mkstemp(prefix="modelsoups-")
        path = Path(name)
    try:
        os.pwrite(descriptor, ROW.pack(-1) * MEMBERS, 0)
        os.ftruncate(descriptor, TABLE + slots * SLOT)
        yield path
    finally:
        if path.parent != Path(f"/proc/{os.getpid()}/fd"):
            path.unlink(missing_ok=True)
        os.close(descriptor)


class SharedImages:
    """One run's view of the file of `shared_file`. It is opened anew in each process, such as a loader's."""

    def __init__(self, path: Path) -> None:
        self.path, self.slots = path, (path.stat().st_size - TABLE) // SLOT
        self._descriptor, self._owner = -1, -1

    def __getstate__(self) -> dict[str, Path]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Path]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def image(self, epoch: int, place: int, decode: Callable[[], Sequence[Part]]) -> bytes | None:
        """Return the image at this place of the epoch's order, or None after decode(), whose parts fill its slot."""
        file, start = self._file(), TABLE + place % self.slots * SLOT
        fcntl.lockf(file, fcntl.LOCK_EX, HEADER.size, start)
        try:
            held_epoch, held_place, size = HEADER.unpack(os.pread(file, HEADER.size, start))
            if size and (held_epoch, held_place) == (epoch, place):
                return os.pread(file, size, start + HEADER.size)
            parts = decode()
            behind = size and (held_epoch, held_place) > (epoch, place)  # others still need what is there
            size = sum(map(len, parts))
            if not behind and size <= SLOT - HEADER.size:
                self._fill(start, HEADER.pack(epoch, place, size), parts)
            return None
        finally:
            fcntl.lockf(file, fcntl.LOCK_UN, HEADER.size, start)

    def _fill(self, start: int, header: bytes, parts: Sequence[Part]) -> None:
        """Write an image into a slot: its header last, so that a killed process leaves an empty slot."""
        file = self._file()
        os.pwrite(file, HEADER.pack(0, 0, 0), start)
        try:
            os.pwritev(file, parts, start + HEADER.size)
        except OSError:
            return  # no memory is left; the other runs decode this image themselves
        os.pwrite(file, header, start)

    def joined(self) -> "Place":
        """Return a place in the table of runs; ValueError if MEMBERS runs are there already."""
        file = self._file()
        for row in range(MEMBERS):
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, ROW.size, row * ROW.size)
            except OSError:
                continue  # taken
            return Place(file, row, self.slots // 2)
        raise ValueError(f"{MEMBERS} runs share their images already; set finetune.parallel to at most {MEMBERS}")

    def _file(self) -> int:
        if self._owner != os.getpid():  # locks belong to a process, so each one opens the file itself
            self._descriptor, self._owner = os.open(self.path, os.O_RDWR), os.getpid()
        return self._descriptor


class Place:
    """A run's row in the table: how many images it has trained on. The row is free once its process ends."""

    def __init__(self, file: int, row: int, far: int) -> None:
        """far: images by which this run may be ahead of another."""
        self.file, self.row, self.far = file, row, far
        self._given_up: dict[int, int] = {}  # row -> where it stood still

    def reached(self, images: int, wait: bool = True) -> None:
        """Write how far this run is; with `wait`, wait while another one is more than `far` behind and moves."""
        os.pwrite(self.file, ROW.pack(images), self.row * ROW.size)
        last, since = None, time.monotonic()
        while wait and (behind := self._behind(images - self.far)):
            if behind != last:
                last, since = behind, time.monotonic()
            elif time.monotonic() - since > STALLED:
                self._given_up |= behind
            time.sleep(0.01)

    def leave(self) -> None:
        """Free the row, and close the file, which ends all of this process's locks on it."""
        os.pwrite(self.file, ROW.pack(-1), self.row * ROW.size)
        os.close(self.file)

    def _behind(self, images: int) -> dict[int, int]:
        """Return how far each run is that has reached fewer images, without those that do not move any more."""
        rows = enumerate(ROW.iter_unpack(os.pread(self.file, TABLE, 0)))
        found = {row: at for row, (at,) in rows if 0 <= at < images and row != self.row}
        return {row: at for row, at in found.items() if self._given_up.get(row) != at and self._is_taken(row)}

    def _is_taken(self, row: int) -> bool:
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, ROW.size, row * ROW.size)
        except OSError:
            return True
        fcntl.lockf(self.file, fcntl.LOCK_UN, ROW.size, row * ROW.size)
        return False
