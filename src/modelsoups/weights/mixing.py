"""Write or return the weighted sum of checkpoints; each byte is read once and hashed on the way.

Memory: a few MB of buffers for each thread, and up to 256 MB of mapped pages of the files.
"""

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
from safetensors import SafetensorError, safe_open
from torch import Tensor

from modelsoups.checkpoints.formats import DTYPES
from modelsoups.checkpoints.layouts import check_layouts
from modelsoups.checkpoints.mapped import CHANGED
from modelsoups.checkpoints.states import is_finite
from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.disk import storage
from modelsoups.disk.opening import utf8_name
from modelsoups.weights import digests as digest
from modelsoups.weights.fast import blocks
from modelsoups.weights.fast.blocks import Piece, Room, Rows
from modelsoups.weights.state_dicts import Coefficients, as_counts, check_groups, of_group

NAMES = {dtype: name for name, dtype in DTYPES.items()}
Facts = Callable[[tuple[str, ...]], dict[str, str]]  # digests -> metadata
Write = Callable[[str, int, Tensor], None]  # tensor, first element, flat elements
METADATA = "__metadata__"
RESERVED = ("format", "modelsoups")  # keys of the metadata, which name ties too
PAGE = 4096  # bytes
PORTION = 2**24  # bytes of the output that are sent to the disk at a time


@dataclass
class Plan:
    """The layout of a .safetensors file to write: tensor offsets, size, tied tensors and header."""

    offsets: dict[str, int]
    size: int
    tied: dict[str, str]
    header: bytes


@dataclass
class _Output:
    """Where mixed tensors go: `write`; tensors written instead, by name; and the dtype of floats."""

    write: Write
    replaced: Mapping[str, Tensor] = field(default_factory=dict)
    dtype: torch.dtype | None = None


def mix_to_file(
    checkpoints: Sequence[Checkpoint],
    coefficients: Coefficients,
    out: Path,
    facts: Facts = lambda digests: {},
    replaced: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> list[str]:
    """Write the weighted sum sum_i c_i theta_i to a .safetensors file; return notes for the user.

    Integer and boolean tensors are from the first model; a note names those that differ. Tensors
    tied in all checkpoints are written once, as by safetensors.torch.save_model. Tensors in
    `replaced` replace mixed ones. facts(digests of the checkpoints) returns the metadata; it is
    called first with placeholders of equal size. dtype: that of the floats in the file, by default
    the checkpoints'. Raises ValueError for different shapes or dtypes,
    complex numbers, NaN or infinity, a file that changes meanwhile, and if `out` is an input;
    OSError, before anything is written, if the disk is too small.
    """
    if not checkpoints:
        raise ValueError("no checkpoints to mix")
    check_layouts(checkpoints)
    for checkpoint in checkpoints:
        if out.exists() and any(file.samefile(out) for file in checkpoint.files):
            raise ValueError(f"{out} would overwrite the input {checkpoint.name}; give another name")
    dtypes = {key: _written(entry.dtype, dtype) for key, entry in checkpoints[0].entries.items()}
    plan = _plan(checkpoints, coefficients, dtypes, facts((digest.UNKNOWN,) * len(checkpoints)))
    storage.check_space(out, plan.size)
    with storage.atomic(out) as tmp:
        descriptor = os.open(tmp, os.O_WRONLY)
        try:
            os.truncate(descriptor, plan.size)

            def write(key: str, start: int, part: Tensor) -> None:
                place = plan.offsets[key] + start * part.dtype.itemsize
                content = part.view(torch.uint8).numpy().data
                _write(descriptor, content, place)
                _begin_to_disk(descriptor, place, place + len(content))

            output = _Output(write, replaced or {}, dtype)
            digests, differing = _stream(checkpoints, coefficients, plan.tied, output)
            whole = _plan(checkpoints, coefficients, dtypes, facts(digests))
            assert whole.size == plan.size
            _write(descriptor, memoryview(whole.header), 0)
        finally:
            os.close(descriptor)
        _check_written(tmp, out, plan)
    return _notes(checkpoints, plan.tied, differing)


def mix_in_memory(checkpoints: Sequence[Checkpoint], coefficients: Coefficients) -> dict[str, Tensor]:
    """Return the weighted sum of checkpoints by tensor name; errors as for `mix_to_file`."""
    check_layouts(checkpoints)
    check_groups(checkpoints[0], coefficients)
    tied = _tied(checkpoints, coefficients)
    entries = checkpoints[0].entries
    made = {key: torch.empty(entries[key].shape, dtype=entries[key].dtype) for key in entries if key not in tied}

    def write(key: str, start: int, part: Tensor) -> None:
        made[key].view(-1)[start : start + len(part)] = part

    _stream(checkpoints, coefficients, tied, _Output(write))
    return {key: made[tied[key]].clone() if key in tied else made[key] for key in checkpoints[0]}


def _tied(checkpoints: Sequence[Checkpoint], coefficients: Coefficients) -> dict[str, str]:
    """Return {name: name of the same tensor} for the tied tensors that can be written once."""
    tied: dict[str, str] = {}
    for a, b in checkpoints[0].tied.items():
        everywhere = all(checkpoint.tied.get(a) == b for checkpoint in checkpoints)
        if a not in RESERVED and everywhere and of_group(a, coefficients) == of_group(b, coefficients):
            tied[a] = b
    return tied


def _written(dtype: torch.dtype, wanted: torch.dtype | None) -> torch.dtype:
    """Return in which dtype numbers of this dtype are written: floats in the wanted one, if any."""
    return wanted if wanted is not None and dtype.is_floating_point else dtype


def _plan(
    checkpoints: Sequence[Checkpoint],
    coefficients: Coefficients,
    dtypes: Mapping[str, torch.dtype],
    metadata: dict[str, str],
) -> Plan:
    entries = checkpoints[0].entries
    check_groups(entries, coefficients)
    _check_names(checkpoints[0])
    tied = _tied(checkpoints, coefficients)
    header: dict[str, object] = {METADATA: {"format": "pt", **tied, **metadata}}
    offsets, end = {}, 0

    def place(key: str) -> tuple[bool, int]:
        """Return a sort key: tensors of whole pages first, since page-aligned writes are faster."""
        return size(key) % PAGE != 0, -dtypes[key].itemsize

    def size(key: str) -> int:
        return math.prod(entries[key].shape) * dtypes[key].itemsize

    for key in sorted((key for key in entries if key not in tied), key=place):
        offsets[key], end = end, end + size(key)
        shape = list(entries[key].shape)
        header[key] = {"dtype": NAMES[dtypes[key]], "shape": shape, "data_offsets": [offsets[key], end]}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % PAGE)
    start = 8 + len(text)
    placed = {key: start + offset for key, offset in offsets.items()}
    return Plan(placed, start + end, tied, len(text).to_bytes(8, "little") + text)


def _check_names(first: Checkpoint) -> None:
    """Raise ValueError if a tensor's name cannot be written to a safetensors file."""
    for key in first.entries:
        what = "has a name that safetensors reserves" if key == METADATA else None
        try:
            key.encode()
        except UnicodeEncodeError:
            what = "has characters that are not valid Unicode"
        if what:
            raise ValueError(f"{first.name}: tensor {key!r} {what}, so it cannot be written; rename it")


def _check_written(tmp: Path, out: Path, plan: Plan) -> None:
    """Raise ValueError unless safetensors can open the file `tmp`, which is to become `out`."""
    try:
        with utf8_name(tmp) as name, safe_open(name, "numpy") as file:
            odd = plan.offsets.keys() ^ set(file.keys())
    except SafetensorError as error:
        raise ValueError(f"{out}: safetensors cannot open what was written ({error}), so it is not kept") from error
    assert not odd, odd


def _stream(
    checkpoints: Sequence[Checkpoint],
    coefficients: Coefficients,
    tied: Mapping[str, str],
    output: _Output,
) -> tuple[tuple[str, ...], list[str]]:
    """Mix and write all tensors; return digests and the names of integer tensors that differ."""
    rows_by_group = {}
    for group, row in coefficients.items():
        weights, divisor = as_counts(row)
        rows_by_group[group] = np.array(weights, np.float64), divisor
    keys = [key for key in checkpoints[0].entries if key not in tied]
    todo = blocks.pieces(checkpoints[0], keys, blocks.size_of_pieces(len(checkpoints)))
    found_SPK16 = blocks.digests_of_pieces(len(todo), len(checkpoints))
    differing: set[str] = set()

    def one(room: Room, rows: Rows, number: int, piece: Piece) -> None:
        key, start, stop = piece
        weights_K, divisor = of_group(key, rows_by_group)
        found_PK16 = found_SPK16[number, : len(blocks.parts(piece))]
        mixed, finite = room.mix(rows, piece, weights_K, divisor, found_PK16)
        if not finite:
            raise ValueError(_not_finite(checkpoints, key, mixed.dtype))
        if not mixed.dtype.is_floating_point and (found_PK16 != found_PK16[:, :1]).any():
            differing.add(key)
        if key in output.replaced:
            mixed = output.replaced[key].reshape(-1)[start:stop].to(mixed.dtype).contiguous()
        output.write(key, start, mixed)

    Room()  # loads the compiled loops in this thread, where Ctrl-C ends it at once
    blocks.each_piece(checkpoints, todo, lambda: partial(one, Room(output.dtype)))
    digests = digest.joined(checkpoints, todo, found_SPK16)
    for checkpoint, found in zip(checkpoints, digests, strict=True):
        if checkpoint.touched() and digest.digest(checkpoint) != found:
            raise ValueError(f"{checkpoint.name} {CHANGED}")
    return digests, sorted(differing)


def _notes(checkpoints: Sequence[Checkpoint], tied: Mapping[str, str], differing: Sequence[str]) -> list[str]:
    notes = [f"{opened.name}: {note}" for opened in checkpoints for note in opened.notes]
    if tied:
        notes.append(f"{', '.join(tied)}: shared with another tensor (tied), so written once")
    if differing:
        shown = ", ".join(differing[:3]) + (", ..." if len(differing) > 3 else "")
        notes.append(f"{shown}: integer tensors, not averaged; they differ, and the first checkpoint's are used")
    return notes


def _not_finite(checkpoints: Sequence[Checkpoint], key: str, dtype: torch.dtype) -> str:
    for checkpoint in checkpoints:
        if not is_finite(checkpoint[key]):
            return f"{checkpoint.name}: tensor {key} contains NaN or infinity; leave this checkpoint out"
    name = str(dtype).removeprefix("torch.")
    return f"tensor {key} overflows its dtype {name} when mixed; use smaller coefficients or another dtype"


def _write(descriptor: int, view: memoryview, offset: int) -> None:
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _begin_to_disk(descriptor: int, start: int, stop: int) -> None:
    """Start writing bytes `start` to `stop` to disk now, so that the final fsync takes less time.

    Linux only: there POSIX_FADV_DONTNEED starts to write dirty pages (mm/fadvise.c) and keeps them.
    """
    first, last = start // PORTION * PORTION, stop // PORTION * PORTION
    if first < last and sys.platform == "linux":
        os.posix_fadvise(descriptor, first, last - first, os.POSIX_FADV_DONTNEED)
