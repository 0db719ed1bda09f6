"""Mixing checkpoints in one streamed pass: each byte is read once, in the file's order, and hashed on its way.

Memory: that of a pass (`core.passes`: a few MB a thread, and 256 MB of the files' pages), whatever the number
of checkpoints and their size; plus, for tensors of .pt files that are not contiguous, pages of torch's memory map.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modelsoups.checkpoints.formats import DTYPES, Checkpoint
from modelsoups.disk import storage
from modelsoups.weights import digests as digest
from modelsoups.weights.fast.blocks import Piece, Room, Rows, parts, room_for_hashes, size_of_pieces
from modelsoups.weights.passes import each_piece, pieces
from modelsoups.weights.state_dicts import Coefficients, as_counts, check_groups, of_group

NAMES = {dtype: name for name, dtype in DTYPES.items()}
Facts = Callable[[tuple[str, ...]], dict[str, str]]  # the checkpoints' digests -> the file's metadata
Write = Callable[[str, int, Tensor], None]  # tensor's name, its first element that is given, flat elements
PAGE = 4096  # bytes
PORTION = 2**24  # bytes of the output that go to the disk at a time


@dataclass
class Plan:
    """What goes where: tensors in the order of the output with their offsets, and what will be said about it."""

    offsets: dict[str, int]
    size: int
    tied: dict[str, str]
    header: bytes
    notes: list[str] = field(default_factory=list)


def check_layouts(checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse complex numbers, and names, shapes or dtypes unlike the first's; only headers are looked at."""
    for key, entry in checkpoints[0].entries.items():
        if entry.dtype.is_complex:
            raise ValueError(f"{checkpoints[0].name}: tensor {key} holds complex numbers, which are not supported")
    first = checkpoints[0].layout()
    for other in checkpoints[1:]:
        layout = other.layout()
        for key in [*first, *layout]:
            if first.get(key) != layout.get(key):
                raise ValueError(
                    f"{other.name} cannot be mixed with {checkpoints[0].name}: tensor {key} is "
                    f"{layout.get(key, 'missing')}, expected {first.get(key, 'no such tensor')}; "
                    "`modelsoups doctor` compares all of them"
                )


def mix_to_file(
    checkpoints: Sequence[Checkpoint],
    coefficients: Coefficients,
    out: Path,
    facts: Facts = lambda digests: {},
    replaced: Mapping[str, Tensor] | None = None,
) -> list[str]:
    """sum_i c_i theta_i as `core.weights.mix` computes it, bit for bit, written to `out`; returns notes for the user.

    Integer and boolean tensors are the first checkpoint's; where others differ, the notes say so. Tensors that are tied
    in every checkpoint are written once, with the metadata that safetensors.torch.load_model understands.
    Tensors in `replaced` are written instead of the mixed ones. facts gives the metadata, and may refuse the digests;
    digests are of one length, so it is asked for the metadata's size first, with `digest.UNKNOWN` for each.
    Raises ValueError naming checkpoint and tensor for other layouts, complex numbers, NaN or infinity, and for an
    output that is one of the inputs.
    """
    if not checkpoints:
        raise ValueError("no checkpoints to mix")
    check_layouts(checkpoints)
    if used := next((c.name for c in checkpoints if any(out.exists() and f.samefile(out) for f in c.files)), None):
        raise ValueError(f"{out} is to be written, but it is read as {used}; give another name")
    plan = _plan(checkpoints, coefficients, facts((digest.UNKNOWN,) * len(checkpoints)))
    with storage.atomic(out) as tmp:
        descriptor = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            os.truncate(descriptor, plan.size)

            def write(key: str, start: int, part: Tensor) -> None:
                place = plan.offsets[key] + start * part.dtype.itemsize
                content = part.view(torch.uint8).numpy().data
                _write(descriptor, content, place)
                _begin_to_disk(descriptor, place, place + len(content))

            mixed = _stream(checkpoints, coefficients, plan.tied, write, replaced or {})
            whole = _plan(checkpoints, coefficients, facts(mixed.digests))
            assert whole.size == plan.size
            _write(descriptor, memoryview(whole.header), 0)
        finally:
            os.close(descriptor)
    return plan.notes + mixed.notes


def mix_in_memory(checkpoints: Sequence[Checkpoint], coefficients: Coefficients) -> dict[str, Tensor]:
    """`core.weights.mix` of these checkpoints, bit for bit, a block of all of them in memory at a time.

    Raises as `mix_to_file` does.
    """
    check_layouts(checkpoints)
    check_groups(checkpoints[0], coefficients)
    tied = _tied(checkpoints, coefficients)
    entries = {k: e for k, e in checkpoints[0].entries.items() if k not in tied}
    made = {key: torch.empty(entry.shape, dtype=entry.dtype) for key, entry in entries.items()}
    flat = {key: tensor.reshape(-1) for key, tensor in made.items()}

    def write(key: str, start: int, part: Tensor) -> None:
        flat[key][start : start + len(part)] = part

    _stream(checkpoints, coefficients, tied, write, {})
    return {key: made[tied[key]].clone() if key in tied else made[key] for key in checkpoints[0]}


def _tied(checkpoints: Sequence[Checkpoint], coefficients: Coefficients) -> dict[str, str]:
    """The ties that all checkpoints have and the coefficients keep."""
    return {
        a: b
        for a, b in checkpoints[0].tied.items()
        if all(c.tied.get(a) == b for c in checkpoints) and of_group(a, coefficients) == of_group(b, coefficients)
    }


def _plan(checkpoints: Sequence[Checkpoint], coefficients: Coefficients, extra: dict[str, str]) -> Plan:
    first = checkpoints[0]
    check_groups(first, coefficients)
    tied = _tied(checkpoints, coefficients)
    sizes = {k: math.prod(e.shape) * e.dtype.itemsize for k, e in first.entries.items() if k not in tied}
    # Whole pages first, each then where a page begins: writing there is twice as fast. The others by their alignment.
    keys = sorted(sizes, key=lambda k: (sizes[k] % PAGE != 0, -first.entries[k].dtype.itemsize))
    header: dict[str, object] = {"__metadata__": {"format": "pt", **tied, **extra}}
    offsets, end = {}, 0
    for key in keys:
        entry = first.entries[key]
        offsets[key], end = end, end + sizes[key]
        header[key] = {"dtype": NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": [offsets[key], end]}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % PAGE)
    start = 8 + len(text)
    notes = [f"{c.name}: {note}" for c in checkpoints for note in c.notes]
    if tied:
        notes.append(f"{', '.join(tied)}: tied, written once")
    placed = {key: start + offset for key, offset in offsets.items()}
    return Plan(placed, start + end, tied, len(text).to_bytes(8, "little") + text, notes)


@dataclass
class Streamed:
    """What was found on the way: each checkpoint's digest, and notes for the user."""

    digests: tuple[str, ...]
    notes: list[str]


def _stream(
    checkpoints: Sequence[Checkpoint],
    coefficients: Coefficients,
    tied: Mapping[str, str],
    write: Write,
    replaced: Mapping[str, Tensor],
) -> Streamed:
    """Every block of every tensor, mixed and written by as many threads as torch has."""
    keys = [key for key in checkpoints[0].entries if key not in tied]
    counts = {group: as_counts(row) for group, row in coefficients.items()}
    rows = {group: (np.array(weights, np.float64), divisor) for group, (weights, divisor) in counts.items()}
    todo = pieces(checkpoints[0], keys, size_of_pieces(len(checkpoints)))
    found_SPK16 = room_for_hashes(len(todo), len(checkpoints))
    differing: set[str] = set()

    def one(room: Room, ingredients: Rows, number: int, piece: Piece) -> None:
        key, start, stop = piece
        found_PK16 = found_SPK16[number, : len(parts(piece))]
        mixed, finite = room.mix(ingredients, piece, *of_group(key, rows), found_PK16)
        if not finite:
            raise ValueError(_not_finite(checkpoints, key))
        if not mixed.dtype.is_floating_point and (found_PK16 != found_PK16[:, :1]).any():
            differing.add(key)
        if key in replaced:
            mixed = replaced[key].reshape(-1)[start:stop].to(mixed.dtype).contiguous()
        write(key, start, mixed)

    each_piece(checkpoints, todo, lambda: partial(one, Room()))
    return Streamed(digest.joined(checkpoints, todo, found_SPK16), _of_whole_numbers(sorted(differing)))


def _of_whole_numbers(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    shown = f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
    return [f"{shown}: whole-number tensors are not averaged; they differ, and the first checkpoint's were taken"]


def _write(descriptor: int, view: memoryview, offset: int) -> None:
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _begin_to_disk(descriptor: int, start: int, stop: int) -> None:
    """Let the system bring a stretch of PORTION bytes to the disk once bytes start to stop have completed it.

    Without, it begins with the fsync at the end. "Not needed" starts the writing of dirty pages (Linux: mm/fadvise.c);
    those are still needed for it, and stay in the system's cache.
    """
    first, last = start // PORTION * PORTION, stop // PORTION * PORTION
    if first < last and sys.platform == "linux":
        os.posix_fadvise(descriptor, first, last - first, os.POSIX_FADV_DONTNEED)


def _not_finite(checkpoints: Sequence[Checkpoint], key: str) -> str:
    for checkpoint in checkpoints:
        if not bool(torch.isfinite(checkpoint[key]).all()):
            return f"{checkpoint.name}: tensor {key} holds NaN or infinity; leave this checkpoint out"
    return f"tensor {key} overflows its dtype when mixed; use smaller coefficients"
