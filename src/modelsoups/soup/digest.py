"""What a checkpoint holds, as one short word that can be found while its bytes pass by in any order.

A digest is "xxh3_128:" and 32 hex digits: XXH3 (128 bits) over name, dtype and shape of every tensor in the order of
the names, each followed by the XXH3 of its blocks of BLOCK elements. It depends on the content alone, not on file,
order or ties. It finds damage and mistakes; against forgery take the SHA-256 of the file.
Source: the xxHash specification (github.com/Cyan4973/xxHash), through its Python package.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from xxhash import xxh3_128

from modelsoups.core.checkpoints import state_sha256
from modelsoups.core.readers import Checkpoint

BLOCK = 2**16  # elements; part of what a digest is
WIDEST = 16  # bytes of an element
KIND, LATER = "xxh3_128:", "stat:"
UNKNOWN = KIND + "0" * 32


def blocks(checkpoint: Checkpoint, key: str) -> Iterator[tuple[int, int]]:
    """(first element, element after the last) of each block of a tensor."""
    count = math.prod(checkpoint.entries[key].shape)
    for start in range(0, count, BLOCK):
        yield start, min(start + BLOCK, count)


def joined(checkpoint: Checkpoint, of_blocks: dict[str, bytes]) -> str:
    """The digest from those of the blocks of each tensor; a tied one may be left to the tensor that it shares."""
    whole = xxh3_128()
    for key in sorted(checkpoint):
        entry = checkpoint.entries[key]
        whole.update(json.dumps([key, str(entry.dtype), list(entry.shape)]).encode() + b"\n")
        whole.update(of_blocks[key if key in of_blocks else checkpoint.tied[key]])
    return KIND + whole.hexdigest()


def digest(checkpoint: Checkpoint) -> str:
    """Read a checkpoint for its digest alone."""
    room, of_blocks = memoryview(bytearray(BLOCK * WIDEST)), {}
    for key, entry in checkpoint.entries.items():
        if key not in checkpoint.tied:
            parts = (xxh3_128(entry.read(*block, room)).digest() for block in blocks(checkpoint, key))
            of_blocks[key] = b"".join(parts)
    return joined(checkpoint, of_blocks)


def digests(checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """The digests of several, as many at a time as torch has threads."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return tuple(pool.map(digest, checkpoints))


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
