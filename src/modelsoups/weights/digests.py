"""Digests: hashes of the contents of checkpoints, computed while mixing reads the weights.

A digest is "xxh3_128:" and 32 hex digits: the XXH3 hash of all tensors' names, dtypes, shapes and
XXH3 hashes of blocks of `blocks.BLOCK` elements, sorted by name. It is equal in all file formats.
It detects accidental changes, but not forgery; `states.state_sha256` detects both.
"""

import json
import math
from collections.abc import Sequence

from xxhash import xxh3_128

from modelsoups.checkpoints.states import state_sha256
from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.weights.fast import blocks
from modelsoups.weights.fast.blocks import Digests, Piece, Rows

KIND, LATER = "xxh3_128:", "stat:"
UNKNOWN = KIND + "0" * 32


def joined(checkpoints: Sequence[Checkpoint], read: Sequence[Piece], found_SPK16: Digests) -> tuple[str, ...]:
    """Return K checkpoints' digests from block hashes, (S pieces, P blocks, K, 16 bytes)."""
    first, wholes = checkpoints[0], [xxh3_128() for _ in checkpoints]
    spans: dict[str, tuple[int, int]] = {}  # tensor -> its first piece and the one after its last
    for number, (key, *_) in enumerate(read):
        spans[key] = spans.get(key, (number, 0))[0], number + 1
    for key in sorted(first):
        entry = first.entries[key]
        head = json.dumps([key, str(entry.dtype), list(entry.shape)]).encode() + b"\n"
        start, stop = spans.get(key) or spans.get(first.tied.get(key, key), (0, 0))
        count = -(-math.prod(entry.shape) // blocks.BLOCK)
        found_NK16 = found_SPK16[start:stop].reshape(-1, *found_SPK16.shape[2:])[:count]
        for k, whole in enumerate(wholes):
            whole.update(head)
            whole.update(found_NK16[:, k].tobytes())
    own = [KIND + whole.hexdigest() for whole in wholes]
    return tuple(d if c.before is None else digest(c) for c, d in zip(checkpoints, own, strict=True))


def digest(checkpoint: Checkpoint) -> str:
    """Return the digest ("xxh3_128:...") of a checkpoint's original content; reads it once."""
    checkpoint = checkpoint if checkpoint.before is None else checkpoint.before
    keys = [key for key in checkpoint.entries if key not in checkpoint.tied]
    todo = blocks.pieces(checkpoint, keys, blocks.size_of_pieces(1))
    found_SPK16 = blocks.digests_of_pieces(len(todo), 1)

    def one(rows: Rows, number: int, piece: Piece) -> None:
        for found_K16, part in zip(found_SPK16[number], blocks.parts(piece), strict=False):
            found_K16[:] = blocks.hashes(rows.blocks(slice(1), part))

    blocks.each_piece([checkpoint], todo, lambda: one)
    return joined([checkpoint], todo, found_SPK16)[0]


def later(checkpoint: Checkpoint) -> str:
    """Return a hash of the files' sizes and times of change, used until mixing computes the digest.

    For a state dict in memory, return its digest.
    """
    if not checkpoint.files:
        return digest(checkpoint)
    files = checkpoint.files if checkpoint.before is None else checkpoint.before.files  # an adapter's, not its base's
    facts = [(file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return LATER + xxh3_128(json.dumps(facts).encode()).hexdigest()


def check(name: str, checkpoint: Checkpoint, expected: str, got: str | None = None) -> None:
    """Raise ValueError if a checkpoint changed since it was chosen as a soup's ingredient `name`.

    expected: its hash when it was chosen. got: its digest now. Without `got` an expected digest is
    not checked yet, but a sha256 is, and so are sizes and times of files.
    """
    if expected.startswith(KIND):
        same = got in (None, expected)
    else:  # compared before mixing
        computed = later if expected.startswith(LATER) else state_sha256
        same = got is not None or computed(checkpoint) == expected
    if not same:
        raise ValueError(f"{checkpoint.name}: not the ingredient {name} of the soup: its content differs")
