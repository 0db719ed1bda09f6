"""What a checkpoint holds, as one short word that can be found while its bytes pass by in any order.

A digest is "xxh3_128:" and 32 hex digits: XXH3 (128 bits) over name, dtype and shape of every tensor in the order of
the names, each followed by the XXH3 of its blocks of 2**16 elements (`core.passes.BLOCK`). It depends on the content
alone, not on file, order or ties. It finds damage and mistakes; against forgery take the SHA-256 of the file.
Source: the xxHash specification (github.com/Cyan4973/xxHash), through its Python package.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import cast

from xxhash import xxh3_128, xxh3_128_digest

from modelsoups.core.checkpoints import state_sha256
from modelsoups.core.passes import Piece, Rows, each_piece, pieces
from modelsoups.core.readers import Checkpoint
from modelsoups.core.stored import Block

KIND, LATER = "xxh3_128:", "stat:"
UNKNOWN = KIND + "0" * 32
of_block = cast(Callable[[Block], bytes], xxh3_128_digest)  # 16 bytes


def joined(checkpoint: Checkpoint, read: Sequence[Piece], found: Sequence[bytes], position: int = 0) -> str:
    """The digest from those of the pieces read, each of several checkpoints; a tied tensor may be left out."""
    parts: dict[str, list[bytes]] = {key: [] for key in checkpoint if key not in checkpoint.tied}
    at = slice(16 * position, 16 * position + 16)
    for (key, _, _), digests in zip(read, found, strict=True):
        parts.setdefault(key, []).append(digests[at])
    whole = xxh3_128()
    for key in sorted(checkpoint):
        entry = checkpoint.entries[key]
        whole.update(json.dumps([key, str(entry.dtype), list(entry.shape)]).encode() + b"\n")
        whole.update(b"".join(parts[key if key in parts else checkpoint.tied[key]]))
    return KIND + whole.hexdigest()


def digest(checkpoint: Checkpoint) -> str:
    """Read a checkpoint for its digest alone."""
    todo = pieces(checkpoint, (key for key in checkpoint.entries if key not in checkpoint.tied))
    found = [b""] * len(todo)

    def one(rows: Rows, number: int, piece: Piece) -> None:
        for _, (block,) in rows.read(piece):
            found[number] = of_block(block)

    each_piece([checkpoint], todo, lambda: one)
    return joined(checkpoint, todo, found)


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
