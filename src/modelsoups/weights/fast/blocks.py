"""Sums and inner products of pieces of tensors in reused memory; sums have the bits of `core.weights.TensorSum`.

A piece is worked through by blocks, of which a few rows fit into the processor's cache: they are read, added and hashed
while they are there. float32 is read where it lies; narrower numbers are widened to it, which loses nothing. Both are
added in float64 by `core.kernels`; everything else goes to TensorSum.

Legend: K ingredients, n numbers of a piece, P of its blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from xxhash import xxh3_128_digest

from modelsoups.checkpoints.formats import Checkpoint
from modelsoups.checkpoints.tensors import Block, Flat
from modelsoups.weights.state_dicts import TensorSum

BLOCK = 2**16  # numbers; the digests of soups depend on it
PIECE = 2**18  # that a thread takes at a time of up to ROWS ingredients
ROWS = 8  # that are widened or copied at a time
WIDE = 2**12  # numbers that are widened at a time within a block
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # as `core.kernels` has them
Piece = tuple[str, int, int]  # a tensor, its first element and the one after the last
Weights = NDArray[np.float64]
Addresses = NDArray[np.uint64]
Digests = NDArray[np.uint8]  # P x K x 16 bytes: XXH3 (128 bits) in its canonical form
NOT_ASKED: Digests = np.empty((0, 0, 16), np.uint8)


def hashes(blocks: Sequence[Block]) -> Digests:
    """The XXH3 of each."""
    return np.frombuffer(b"".join(map(xxh3_128_digest, blocks)), np.uint8).reshape(-1, 16)  # type: ignore[arg-type]


def size_of_pieces(ingredients: int) -> int:
    """Numbers of a piece, in whole blocks: less of many ingredients, whose memory is in use at a time."""
    return BLOCK * max(1, PIECE // BLOCK * ROWS // max(ROWS, ingredients))


def room_for_hashes(pieces: int, ingredients: int) -> Digests:
    """An array of those of so many pieces, S x P x K x 16; P is right for pieces of `size_of_pieces(ingredients)`."""
    return np.empty((pieces, size_of_pieces(ingredients) // BLOCK, ingredients, 16), np.uint8)


def parts(piece: Piece) -> list[Piece]:
    """Its blocks, the last of which may be shorter."""
    key, start, stop = piece
    return [(key, first, min(first + BLOCK, stop)) for first in range(start, stop, BLOCK)]


class Rows:
    """A thread's view of many checkpoints' tensors; what it needs of the tensor that it is at is made once."""

    def __init__(self, checkpoints: Sequence[Checkpoint]) -> None:
        self.checkpoints = checkpoints
        self.key: str | None = None
        self.first_K: Addresses | None = None
        self.flats = list[Flat]()

    def addresses(self, piece: Piece) -> Addresses | None:
        """Where its first number lies in every checkpoint, if it is one of KINDS and needs no copy."""
        key, start, _ = piece
        self._go_to(key)
        return None if self.first_K is None else self.first_K + np.uint64(self.dtype(key).itemsize * start)

    def read(self, piece: Piece) -> Iterator[tuple[slice, list[Block]]]:
        """A piece of ROWS checkpoints, and of the next ones: their positions and blocks."""
        key, start, stop = piece
        self._go_to(key)
        self.flats = self.flats or [c.entries[key].flat() for c in self.checkpoints]
        for first in range(0, len(self.flats), ROWS):
            some = slice(first, min(first + ROWS, len(self.flats)))
            yield some, [flat[start:stop] for flat in self.flats[some]]

    def dtype(self, key: str) -> torch.dtype:
        return self.checkpoints[0].entries[key].dtype

    def _go_to(self, key: str) -> None:
        if key != self.key:
            first = self.checkpoints[0].entries[key]
            for c in self.checkpoints:  # what has an address alone is not looked at again
                if (got := c.entries[key]).dtype != first.dtype or math.prod(got.shape) != math.prod(first.shape):
                    wanted = f"{first.dtype} {first.shape} as in {self.checkpoints[0].name}"
                    raise ValueError(f"{c.name}: tensor {key} is {got.dtype} {got.shape}, expected {wanted}")
            there = [c.entries[key].address() for c in self.checkpoints] if first.dtype in KINDS else [None]
            usable = not any(address is None or address % first.dtype.itemsize for address in there)
            self.key, self.flats, self.first_K = key, [], np.array(there, np.uint64) if usable else None


class Room:
    """A thread's memory for pieces; each result in the memory of the one before."""

    def __init__(self) -> None:
        from modelsoups.weights.fast import loops  # half a second, which not everyone who imports this needs

        self.kernels = loops
        self.total, self.mixed = np.empty(BLOCK), np.empty(PIECE, np.float32)
        self.nought, self.wide = np.zeros(PIECE, np.float32), torch.empty(ROWS, BLOCK)
        self.narrow = np.zeros((ROWS + 1, WIDE), np.float32)
        self.wide_R = np.array([row.data_ptr() for row in self.wide], np.uint64)

    def mix(
        self, rows: Rows, piece: Piece, weights_K: Weights, by: float, found_PK16: Digests = NOT_ASKED
    ) -> tuple[Tensor, bool]:
        """The weighted sum / by, in the rows' dtype, and whether all of it is finite; found_PK16 takes their hashes."""
        _, start, stop = piece
        rows_K = rows.addresses(piece)
        if rows_K is None:
            done = [
                self._block(rows, part, weights_K, by, found_PK16[p : p + 1]) for p, part in enumerate(parts(piece))
            ]
            return torch.cat([mixed for mixed, _ in done]), all(finite for _, finite in done)
        mixed, dtype, xxh3 = self.mixed[: stop - start], rows.dtype(piece[0]), self.kernels.XXH3
        asked, memory = found_PK16 if xxh3 else NOT_ASKED, (self.nought, self.narrow)
        finite = self.kernels.mix(
            mixed, self.total, rows_K, KINDS[dtype], weights_K, by, _exact(by), *memory, xxh3, asked
        )
        if len(asked) < len(found_PK16):
            for found_K16, part in zip(found_PK16, parts(piece), strict=False):
                for some, blocks in rows.read(part):
                    found_K16[some] = hashes(blocks)
        return torch.from_numpy(mixed).to(dtype), finite

    def products(self, rows: Rows, piece: Piece, by_n: Tensor, found_K: Weights) -> None:
        """found_K = <by, row> of every ingredient, by being float32 (float64 for such rows), the sum float64."""
        key, start, stop = piece
        rows_K = rows.addresses(piece)
        if rows_K is not None:
            nought, kind = self.nought[: stop - start], KINDS[rows.dtype(key)]
            self.kernels.products(by_n.numpy(), rows_K, kind, nought, self.narrow, found_K)
            return
        found_K[:] = 0
        for part in parts(piece):
            by = by_n[part[1] - start : part[2] - start]
            for some, blocks in rows.read(part):
                if _is_narrow(rows.dtype(key)):
                    found_R, rows_R = np.empty(len(blocks)), self._widened(blocks, rows.dtype(key))
                    kind, nought = KINDS[torch.float32], self.nought[: len(by)]
                    self.kernels.products(by.numpy(), rows_R, kind, nought, self.narrow, found_R)
                else:
                    found_R = np.array([float(tensor_of(b, rows.dtype(key)).double() @ by.double()) for b in blocks])
                found_K[some] += found_R

    def _block(
        self, rows: Rows, part: Piece, weights_K: Weights, by: float, found_PK16: Digests
    ) -> tuple[Tensor, bool]:
        """`mix` of a block that does not lie there in float32, in memory of its own."""
        key, start, stop = part
        dtype, other, total = rows.dtype(key), TensorSum(), self.total[: stop - start]
        for some, blocks in rows.read(part):
            if len(found_PK16):
                found_PK16[0, some] = hashes(blocks)
            if _is_narrow(dtype):
                rows_R, nought = self._widened(blocks, dtype), self.nought[: stop - start]
                self.kernels.add(total, rows_R, 0, 0, weights_K[some], some.start == 0, nought)
            else:
                for block, weight in zip(blocks, weights_K[some].tolist(), strict=True):
                    other.add(tensor_of(block, dtype), weight)
        if not _is_narrow(dtype):
            mixed = other.divided(by)
            return mixed, bool(mixed.isfinite().all())
        if dtype == torch.float32:
            narrow = torch.empty(stop - start)
            return narrow, self.kernels.divide(narrow.numpy(), total, by, _exact(by), KINDS[dtype])
        narrow = torch.from_numpy(total * (1 / by) if _exact(by) else total / by).to(dtype)
        return narrow, bool(narrow.float().isfinite().all())  # there is no isfinite of float8

    def _widened(self, blocks: Sequence[Block], dtype: torch.dtype) -> Addresses:
        """Where these blocks lie in float32, until the next ones."""
        for row, block in zip(self.wide, blocks, strict=False):
            row[: len(block)].copy_(tensor_of(block, dtype))
        return self.wide_R[: len(blocks)]


def _is_narrow(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point and dtype.itemsize <= 4


def _exact(by: float) -> bool:
    """Whether x * (1 / by) has the bits of x / by: of a power of two. It takes a quarter of the time."""
    return math.frexp(by)[0] == 0.5


def tensor_of(block: Block, dtype: torch.dtype) -> Tensor:
    """The numbers of a block, in its memory."""
    return torch.from_numpy(block.reshape(-1).view(np.uint8)).view(dtype)
