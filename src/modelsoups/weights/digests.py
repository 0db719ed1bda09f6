"""What a checkpoint holds, as one short word that can be found while its bytes pass by in any order.

A digest is "xxh3_128:" and 32 hex digits: XXH3 (128 bits) over name, dtype and shape of every tensor in the order of
the names, each followed by the XXH3 of its blocks of 2**16 elements (`core.blocks.BLOCK`). It depends on the content
alone, not on file, order or ties. It finds damage and mistakes; against forgery take the SHA-256 of the file.
Source: the xxHash specification (github.com/Cyan4973/xxHash), through its Python package.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from xxhash import xxh3_128

from modelsoups.checkpoints.formats import Checkpoint
from modelsoups.checkpoints.states import state_sha256
from modelsoups.weights.fast.blocks import BLOCK, Digests, Piece, Rows, hashes, parts, room_for_hashes, size_of_pieces
from modelsoups.weights.passes import each_piece, pieces

KIND, LATER = "xxh3_128:", "stat:"
UNKNOWN = KIND + "0" * 32


def joined(checkpoints: Sequence[Checkpoint], read: Sequence[Piece], found_SPK16: Digests) -> tuple[str, ...]:
    """The digests of checkpoints of one layout from those of the pieces read; what is tied in all may be left out."""
    first, wholes = checkpoints[0], [xxh3_128() for _ in checkpoints]
    spans: dict[str, tuple[int, int]] = {}  # of each tensor, its first piece and the one after the last
    for number, (key, *_) in enumerate(read):
        spans[key] = spans.get(key, (number, 0))[0], number + 1
    for key in sorted(first):
        entry = first.entries[key]
        head = json.dumps([key, str(entry.dtype), list(entry.shape)]).encode() + b"\n"
        start, stop = spans.get(key) or spans.get(first.tied.get(key, key), (0, 0))
        blocks = -(-math.prod(entry.shape) // BLOCK)
        found_NK16 = found_SPK16[start:stop].reshape(-1, *found_SPK16.shape[2:])[:blocks]
        for k, whole in enumerate(wholes):
            whole.update(head)
            whole.update(found_NK16[:, k].tobytes())
    return tuple(KIND + whole.hexdigest() for whole in wholes)


def digest(checkpoint: Checkpoint) -> str:
    """Read a checkpoint for its digest alone."""
    todo = pieces(checkpoint, (key for key in checkpoint.entries if key not in checkpoint.tied), size_of_pieces(1))
    found_SPK16 = room_for_hashes(len(todo), 1)

    def one(rows: Rows, number: int, piece: Piece) -> None:
        for found_K16, part in zip(found_SPK16[number], parts(piece), strict=False):
            for some, blocks in rows.read(part):
                found_K16[some] = hashes(blocks)

    each_piece([checkpoint], todo, lambda: one)
    return joined([checkpoint], todo, found_SPK16)[0]


def digests(checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """The digests of several."""
    return tuple(map(digest, checkpoints))


def later(checkpoint: Checkpoint) -> str:
    """In place of a digest where the bytes will pass by anyway: sizes and times of the files, which show a change.

    The digest itself of a state in memory.
    """
    if not checkpoint.files:
        return digest(checkpoint)
    facts = [(f.stat().st_size, f.stat().st_mtime_ns) for f in checkpoint.files]
    return LATER + xxh3_128(json.dumps(facts).encode()).hexdigest()


def check(name: str, checkpoint: Checkpoint, expected: str, got: str | None = None) -> None:
    """ValueError unless a checkpoint is the ingredient `name` that was chosen; a digest is looked at once it is `got`.

    The pipeline's soups, and older ones, hold `state_sha256`.
    """
    if expected.startswith(KIND):
        same = got is None or got == expected
    elif got is not None:  # what follows was looked at before mixing
        same = True
    else:
        same = expected == (later(checkpoint) if expected.startswith(LATER) else state_sha256(checkpoint))
    if not same:
        raise ValueError(f"{checkpoint.name}: not the ingredient {name} that was chosen (its content is another)")
