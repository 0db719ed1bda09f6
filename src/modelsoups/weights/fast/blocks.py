"""Weighted sums, inner products and hashes of K checkpoints, multithreaded and piece by piece.

A piece is a range of elements of one tensor, in all checkpoints; it is split into blocks of BLOCK
elements. A block is added and hashed for ROWS checkpoints at a time, within the processor's cache.
`loops` adds floats of up to 32 bits in float64 (float8 after an exact conversion to float32), and
TensorSum all other numbers; the sums equal those of `state_dicts.mix` to the bit. Memory: WINDOW
bytes of mapped pages of the files, and one `Room` (buffers) for each thread.
Letters of array names: K checkpoints, R at a time, S pieces, P blocks and n numbers of a piece.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from xxhash import xxh3_128_digest

from modelsoups.checkpoints.mapped import Bytes, tensor_of
from modelsoups.checkpoints.states import describe
from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.weights.state_dicts import TensorSum
from modelsoups.workers.interrupts import check

BLOCK = 2**16  # numbers that are hashed together; changing it changes the digests of soups
PIECE = 2**18  # numbers of a piece of up to ROWS checkpoints
ROWS = 8  # rows that are added, widened or copied at a time
WIDE = 2**12  # numbers that are added or widened at a time within a block
WINDOW = 2**28  # bytes of the files' pages that a pass keeps mapped
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # as in `loops`
Piece = tuple[str, int, int]  # a tensor's name, its first element and the one after the last
Float64s = NDArray[np.float64]
Addresses = NDArray[np.uint64]
Digests = NDArray[np.uint8]  # P x K x 16: XXH3 (128 bits) of each block of each row
NO_DIGESTS: Digests = np.empty((0, 0, 16), np.uint8)
Visit = Callable[["Rows", int, Piece], None]  # rows, the number of the piece, the piece


def pieces(checkpoint: Checkpoint, keys: Iterable[str], step: int) -> list[Piece]:
    """Split the tensors `keys` into (name, start, stop) ranges of up to `step` flat elements."""
    found: list[Piece] = []
    for key in keys:
        size = math.prod(checkpoint.entries[key].shape)
        found += [(key, start, min(start + step, size)) for start in range(0, size, step)]
    return found


def size_of_pieces(count: int) -> int:
    """Return the elements per checkpoint of a piece, a multiple of BLOCK: fewer for many checkpoints."""
    return BLOCK * max(1, PIECE // BLOCK * ROWS // max(ROWS, count))


def parts(piece: Piece) -> list[Piece]:
    """Split a piece into blocks of BLOCK elements; the last block may be shorter."""
    key, start, stop = piece
    return [(key, first, min(first + BLOCK, stop)) for first in range(start, stop, BLOCK)]


def each_piece(checkpoints: Sequence[Checkpoint], todo: Sequence[Piece], worker: Callable[[], Visit]) -> None:
    """Visit each piece once, in parallel: each thread calls worker() for its own visiting function.

    Raises ValueError at the end if a file was written to meanwhile. An exception in any thread, or
    Ctrl-C, stops all threads within milliseconds.
    """
    if not todo:
        return
    last, numbers = last_of_windows(checkpoints, todo), iter(range(len(todo)))
    lock, failed = threading.Lock(), threading.Event()

    def work() -> None:
        torch.set_num_threads(1)  # for this thread alone: the others use the remaining cores
        try:
            visit, rows = worker(), Rows(checkpoints, failed)
            while not failed.is_set():
                check()
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                visit(rows, number, todo[number])
                if number in last:
                    for checkpoint in checkpoints:
                        checkpoint.release()
        except _Stopped:
            return
        except BaseException:
            failed.set()
            raise

    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for done in [pool.submit(work) for _ in range(threads)]:
                done.result()
        except BaseException:  # Ctrl-C among them: the pool waits for its threads
            failed.set()
            raise
    for checkpoint in checkpoints:
        checkpoint.check_unchanged()


def last_of_windows(checkpoints: Sequence[Checkpoint], todo: Sequence[Piece]) -> set[int]:
    """Return the indices of pieces after which mapped pages are freed: every WINDOW bytes."""
    read, found = 0, {len(todo) - 1}
    for number, (key, start, stop) in enumerate(todo):
        read += (stop - start) * checkpoints[0].entries[key].dtype.itemsize * len(checkpoints)
        if read >= WINDOW:
            found.add(number)
            read = 0
    return found


class _Stopped(Exception):
    """Raised to stop a thread because another thread failed or the user pressed Ctrl-C."""


class Rows:
    """One thread's access to the checkpoints' bytes; caches the addresses of the current tensor.

    stopped: an event; once it is set, `groups` raises _Stopped.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint], stopped: threading.Event | None = None) -> None:
        self.checkpoints, self.stopped = checkpoints, stopped or threading.Event()
        self.key: str | None = None
        self.first_K: Addresses | None = None

    def dtype(self, key: str) -> torch.dtype:
        return self.checkpoints[0].entries[key].dtype

    def groups(self) -> Iterator[slice]:
        """Yield slices of the list of checkpoints, with up to ROWS checkpoints each."""
        count = len(self.checkpoints)
        for first in range(0, count, ROWS):
            if self.stopped.is_set():
                raise _Stopped
            yield slice(first, min(first + ROWS, count))

    def blocks(self, some: slice, piece: Piece) -> list[Bytes]:
        """Return the bytes of a piece in each checkpoint of the slice `some`."""
        key, start, stop = piece
        return [checkpoint.entries[key].block(start, stop) for checkpoint in self.checkpoints[some]]

    def addresses(self, piece: Piece) -> Addresses | None:
        """Return a piece's memory address in each checkpoint; None if `loops` cannot read it there.

        Raises ValueError if shapes or dtypes differ, because `loops` does not check bounds.
        """
        key, start, _ = piece
        first = self.checkpoints[0].entries[key]
        if key != self.key:
            for checkpoint in self.checkpoints:
                if (found := describe(checkpoint.entries[key])) != (expected := describe(first)):
                    where = f"as in {self.checkpoints[0].name}"
                    raise ValueError(f"{checkpoint.name}: tensor {key} is {found}, expected {expected} {where}")
            self.key, self.first_K = key, None
            if first.dtype in KINDS:
                found_K = [checkpoint.entries[key].address() for checkpoint in self.checkpoints]
                if not any(address is None or address % first.dtype.itemsize for address in found_K):
                    self.first_K = np.array(found_K, np.uint64)
        return None if self.first_K is None else self.first_K + np.uint64(first.dtype.itemsize * start)


def hashes(blocks: Sequence[Bytes | memoryview]) -> Digests:
    """Return each block's 128-bit XXH3 hash as a row of 16 bytes; hashing releases the GIL."""
    return np.frombuffer(b"".join(map(xxh3_128_digest, blocks)), np.uint8).reshape(-1, 16)  # type: ignore[arg-type]


def digests_of_pieces(pieces: int, count: int) -> Digests:
    """Return an uninitialized array for block hashes: (pieces, blocks, checkpoints, 16 bytes)."""
    return np.empty((pieces, size_of_pieces(count) // BLOCK, count, 16), np.uint8)


class Room:
    """One thread's buffers for sums and inner products; a call may overwrite earlier results.

    dtype: that of weighted sums of floats, by default the dtype of the checkpoints.
    """

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        from modelsoups.weights.fast import loops, xxh3  # these import Numba, which takes half a second

        self.loops, self.xxh3, self.dtype = loops, xxh3, dtype
        self.total, self.mixed = np.empty(BLOCK), np.empty(PIECE, np.float32)
        self.zeros, self.wide = np.zeros(PIECE, np.float32), torch.empty(ROWS, BLOCK)
        self.chunks = np.zeros((ROWS + 1, WIDE), np.float32)  # the last row stays zero
        self.wide_R = np.array([row.data_ptr() for row in self.wide], np.uint64)

    def mix(
        self, rows: Rows, piece: Piece, weights_K: Float64s, by: float, found_PK16: Digests = NO_DIGESTS
    ) -> tuple[Tensor, bool]:
        """Return (a piece's weighted sum over K checkpoints / by, whether all its numbers are finite).

        Writes the block hashes, (P blocks, K, 16 bytes), to found_PK16; computes none if empty.
        """
        key, start, stop = piece
        dtype = rows.dtype(key)
        if not _is_narrow(dtype):
            return self._mix_wide(rows, piece, weights_K, by, found_PK16)
        written = self.dtype or dtype
        out, kind = self.mixed[: stop - start], KINDS.get(written, 0)
        exact = math.frexp(by)[0] == 0.5  # for powers of two, x * (1 / by) equals x / by and is faster
        in_place = rows.addresses(piece) is not None
        sums = self._sums_in_place if in_place else self._sums_of_copies
        finite = True
        for p, total in enumerate(sums(rows, piece, weights_K, found_PK16)):
            finite &= self.loops.divide(out[p * BLOCK : p * BLOCK + len(total)], total, by, exact, kind)
        mixed = torch.from_numpy(out).to(written)
        if written not in KINDS:
            finite = bool(mixed.float().isfinite().all())  # float8 has no isfinite
        return mixed, finite

    def _sums_in_place(self, rows: Rows, piece: Piece, weights_K: Float64s, found_PK16: Digests) -> Iterator[Float64s]:
        """Yield the weighted sum of each block, read where its K rows lie; hash their bytes."""
        dtype, first_K = rows.dtype(piece[0]), rows.addresses(piece)
        assert first_K is not None, piece
        rows.blocks(slice(None), piece)  # raises ValueError if a file is too short now
        for p, part in enumerate(parts(piece)):
            total = self.total[: part[2] - part[1]]
            rows_K = first_K + np.uint64(p * BLOCK * dtype.itemsize)
            for some in rows.groups():
                self.loops.add(total, rows_K[some], KINDS[dtype], weights_K[some], some.start == 0, self.chunks)
                if not len(found_PK16):
                    continue
                if (size := len(total) * dtype.itemsize) > self.xxh3.SHORT:
                    self.xxh3.write_hashes(found_PK16[p, some], rows_K[some], size)
                else:
                    found_PK16[p, some] = hashes(rows.blocks(some, part))
            yield total

    def _sums_of_copies(self, rows: Rows, piece: Piece, weights_K: Float64s, found_PK16: Digests) -> Iterator[Float64s]:
        """Do as `_sums_in_place` for numbers that must be computed, or converted to float32."""
        for p, part in enumerate(parts(piece)):
            total = self.total[: part[2] - part[1]]
            for some in rows.groups():
                blocks = rows.blocks(some, part)
                rows_R = self._widened(blocks, rows.dtype(part[0]))
                self.loops.add(total, rows_R, 0, weights_K[some], some.start == 0, self.chunks)
                if len(found_PK16):
                    found_PK16[p, some] = hashes(blocks)
            yield total

    def _mix_wide(
        self, rows: Rows, piece: Piece, weights_K: Float64s, by: float, found_PK16: Digests
    ) -> tuple[Tensor, bool]:
        """Do as `mix` for float64 tensors; integer tensors are copied from the first checkpoint."""
        key, done = piece[0], []
        for p, part in enumerate(parts(piece)):
            total = TensorSum()
            for some in rows.groups():
                blocks = rows.blocks(some, part)
                if len(found_PK16):
                    found_PK16[p, some] = hashes(blocks)
                for block, weight in zip(blocks, weights_K[some].tolist(), strict=True):
                    total.add(tensor_of(block, rows.dtype(key)), weight)
            done.append(total.divided(by))
        mixed = torch.cat(done)
        if self.dtype is not None and mixed.is_floating_point():
            mixed = mixed.to(self.dtype)
        return mixed, bool(mixed.isfinite().all())

    def products(self, rows: Rows, piece: Piece, by_n: Tensor, found_K: Float64s) -> None:
        """Write the inner product of by_n and each checkpoint's piece to found_K."""
        key, start, stop = piece
        rows_K, dtype = rows.addresses(piece), rows.dtype(key)
        if rows_K is not None:
            zeros = self.zeros[: stop - start]
            self.loops.products(by_n.numpy(), rows_K, KINDS[dtype], zeros, self.chunks, found_K)
            return
        found_K[:] = 0
        for part in parts(piece):
            by = by_n[part[1] - start : part[2] - start]
            for some in rows.groups():
                blocks = rows.blocks(some, part)
                if _is_narrow(dtype):
                    found_R, rows_R = np.empty(len(blocks)), self._widened(blocks, dtype)
                    self.loops.products(by.numpy(), rows_R, 0, self.zeros[: len(by)], self.chunks, found_R)
                else:
                    found_R = np.array([float(tensor_of(block, dtype).double() @ by.double()) for block in blocks])
                found_K[some] += found_R

    def _widened(self, blocks: Sequence[Bytes], dtype: torch.dtype) -> Addresses:
        """Convert blocks to float32 in a reused buffer; return their memory addresses in it."""
        for row, block in zip(self.wide, blocks, strict=False):
            numbers = tensor_of(block, dtype)
            row[: len(numbers)].copy_(numbers)
        return self.wide_R[: len(blocks)]


def _is_narrow(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point and dtype.itemsize <= 4
