"""Mixing checkpoints into a safetensors file in one streamed pass: each byte is read once, in the file's order.

Memory: per thread three chunks of CHUNK elements in float64 and two as stored (under 4 MB), whatever the number of
checkpoints and their size; plus, for .pt files, pages of the memory map that the system may drop at any time.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from modelsoups import runs
from modelsoups.core.checkpoints import averaged
from modelsoups.core.readers import DTYPES, Checkpoint, Held, Stored, scratch
from modelsoups.core.weights import Coefficients, TensorSum, as_counts, check_groups, of_group
from modelsoups.parallel import cores

CHUNK = 2**17  # elements: read, widened and summed while they are in the processor's cache
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass
class Plan:
    """What goes where: tensors in the order of the output with their offsets, and what will be said about it."""

    offsets: dict[str, int]
    size: int
    tied: dict[str, str]
    header: bytes
    notes: list[str] = field(default_factory=list)


def check_layouts(checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse checkpoints whose names, shapes or dtypes differ from the first's; only headers are looked at."""
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
    metadata: dict[str, str],
    replaced: Mapping[str, Tensor] | None = None,
) -> list[str]:
    """sum_i c_i theta_i as `core.weights.mix` computes it, bit for bit, written to `out`; returns notes for the user.

    Integer and boolean tensors are the first checkpoint's; where others differ, the notes say so. Tensors that are tied
    in every checkpoint are written once, with the metadata that safetensors.torch.load_model understands.
    Tensors in `replaced` are written instead of the mixed ones.
    Raises ValueError naming checkpoint and tensor for other layouts, complex numbers, NaN or infinity.
    """
    if not checkpoints:
        raise ValueError("no checkpoints to mix")
    check_layouts(checkpoints)
    plan = _plan(checkpoints, coefficients, metadata)
    differing: set[str] = set()
    with runs.atomic(out) as tmp:
        descriptor = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            os.truncate(descriptor, plan.size)
            os.pwrite(descriptor, plan.header, 0)
            _stream(checkpoints, coefficients, plan, descriptor, differing, replaced or {})
        finally:
            os.close(descriptor)
    names = sorted(differing)
    if names:
        plan.notes.append(
            f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}: whole-number tensors are not averaged; they "
            "differ, and the first checkpoint's were taken"
        )
    return plan.notes


def _plan(checkpoints: Sequence[Checkpoint], coefficients: Coefficients, extra: dict[str, str]) -> Plan:
    first = checkpoints[0]
    check_groups(first, coefficients)
    tied = {
        a: b
        for a, b in first.tied.items()
        if all(c.tied.get(a) == b for c in checkpoints) and of_group(a, coefficients) == of_group(b, coefficients)
    }
    keys = sorted((k for k in first if k not in tied), key=lambda k: -first.entries[k].dtype.itemsize)  # aligned
    header: dict[str, object] = {"__metadata__": {"format": "pt", **tied, **extra}}
    offsets, end = {}, 0
    for key in keys:
        entry = first.entries[key]
        size = math.prod(entry.shape) * entry.dtype.itemsize
        header[key] = {"dtype": NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": [end, end + size]}
        offsets[key], end = end, end + size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    notes = [f"{c.name}: {note}" for c in checkpoints for note in c.notes]
    if tied:
        notes.append(f"{', '.join(tied)}: tied, written once")
    placed = {key: start + offset for key, offset in offsets.items()}
    return Plan(placed, start + end, tied, len(text).to_bytes(8, "little") + text, notes)


def _stream(
    checkpoints: Sequence[Checkpoint],
    coefficients: Coefficients,
    plan: Plan,
    descriptor: int,
    differing: set[str],
    replaced: Mapping[str, Tensor],
) -> None:
    """Every chunk of every tensor, on every core."""

    def one(piece: tuple[str, int, int]) -> None:
        key, start, stop = piece
        if key in replaced:
            mixed = replaced[key].reshape(-1)[start:stop].to(checkpoints[0].entries[key].dtype)
            _write(descriptor, mixed.contiguous().view(torch.uint8).numpy().data, _place(plan, key, start, mixed))
            return
        row, divisor = as_counts(of_group(key, coefficients))
        total = TensorSum()
        for position, (checkpoint, weight) in enumerate(zip(checkpoints, row, strict=True)):
            entry = checkpoint.entries[key]
            slot = "read" if position else "first"  # the sum may keep the first
            chunk = entry.read(start, stop, scratch(CHUNK * entry.dtype.itemsize, slot))
            total.add(chunk, weight)
            if total.first is not None and not averaged(chunk) and not torch.equal(chunk, total.first):
                differing.add(key)
        mixed = total.divided(divisor)
        if averaged(mixed) and not math.isfinite(float(mixed.sum(dtype=torch.float64))):
            raise ValueError(_not_finite(checkpoints, key))
        _write(descriptor, mixed.contiguous().view(torch.uint8).numpy().data, _place(plan, key, start, mixed))

    pieces = _pieces({key: checkpoints[0].entries[key] for key in plan.offsets})
    on_every_core(one, pieces)


def _place(plan: Plan, key: str, start: int, chunk: Tensor) -> int:
    return plan.offsets[key] + start * chunk.dtype.itemsize


def _pieces(entries: Mapping[str, Stored | Held]) -> Iterator[tuple[str, int, int]]:
    for key, entry in entries.items():
        count = math.prod(entry.shape)
        for start in range(0, count, CHUNK):
            yield key, start, min(start + CHUNK, count)


def on_every_core(function: Callable[[tuple[str, int, int]], None], pieces: Iterator[tuple[str, int, int]]) -> None:
    """Run a function over pieces, taken in order by one thread a core; the first exception ends it."""
    lock, failed = threading.Lock(), threading.Event()

    def work() -> None:
        torch.set_num_threads(1)  # of this thread alone: the cores are taken
        try:
            while not failed.is_set():
                with lock:
                    piece = next(pieces, None)
                if piece is None:
                    return
                function(piece)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(cores()) as pool:
        for done in [pool.submit(work) for _ in range(cores())]:
            done.result()


def _write(descriptor: int, view: memoryview, offset: int) -> None:
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _not_finite(checkpoints: Sequence[Checkpoint], key: str) -> str:
    for checkpoint in checkpoints:
        if not bool(torch.isfinite(checkpoint[key]).all()):
            return f"{checkpoint.name}: tensor {key} holds NaN or infinity; leave this checkpoint out"
    return f"tensor {key} overflows its dtype when mixed; use smaller coefficients"
