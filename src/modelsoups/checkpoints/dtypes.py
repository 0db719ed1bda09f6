"""Reads checkpoints whose dtypes differ as if they had one, and names the dtypes of soups."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from modelsoups.checkpoints.adapters import Adapter
from modelsoups.checkpoints.mapped import tensor_of
from modelsoups.checkpoints.tensors import Checkpoint, Computed, Entry, files_of
from modelsoups.config.soup_options import DTYPES


class Converted(Computed):
    """A tensor that is stored in another dtype than the one in which it is read."""


def dtype_of(name: str | torch.dtype | None) -> torch.dtype | None:
    """Return the dtype with this name, such as "float16" (None for None); ValueError if soups cannot have it."""
    text = str(name).removeprefix("torch.")
    if name is not None and text not in DTYPES:
        raise ValueError(f"dtype={text}: expected one of {', '.join(DTYPES)}, or None for that of the checkpoints")
    found: torch.dtype | None = None if name is None else getattr(torch, text)
    return found


def alike(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Return the checkpoints, with one dtype for each float tensor whose dtypes differ among them.

    It is float32, or float64 if one of them is: no number is rounded. Tensors are converted when
    they are read. A checkpoint keeps the digest of its original content. LoRA adapters are returned
    as they are, because their sum may have factors of any dtypes.
    """
    if any(isinstance(c, Adapter) for c in checkpoints):
        return list(checkpoints)
    odd: dict[str, torch.dtype] = {}
    for key in checkpoints[0].entries:
        found = {c.entries[key].dtype for c in checkpoints if key in c.entries}
        if len(found) > 1 and all(dtype.is_floating_point for dtype in found):
            odd[key] = torch.float64 if torch.float64 in found else torch.float32
    return [_converted(c, odd) for c in checkpoints]


def rounded_to(checkpoint: Checkpoint, dtype: torch.dtype) -> Checkpoint:
    """Return a checkpoint whose computed floats, as of merged adapters, are rounded to `dtype` only."""
    odd = {k: e for k, e in checkpoint.entries.items() if type(e) is Computed and e.dtype.is_floating_point}
    return replace(checkpoint, entries={**checkpoint.entries, **{k: replace(e, dtype=dtype) for k, e in odd.items()}})


def _converted(checkpoint: Checkpoint, dtypes: dict[str, torch.dtype]) -> Checkpoint:
    entries = checkpoint.entries
    odd = {k: _read_as(entries[k], dtype) for k, dtype in dtypes.items() if k in entries and entries[k].dtype != dtype}
    if not odd:
        return checkpoint
    return replace(checkpoint, entries={**entries, **odd}, before=checkpoint.before or checkpoint)


def _read_as(entry: Entry, dtype: torch.dtype) -> Entry:
    if isinstance(entry, Computed):
        return replace(entry, dtype=dtype)
    return Converted(dtype, tuple(entry.shape), partial(_rows, entry), files_of(entry))


def _rows(entry: Entry, first: int, last: int) -> Tensor:
    width = math.prod(entry.shape[1:])
    block = entry.block(first * width, min(last * width, math.prod(entry.shape)))
    return tensor_of(block, entry.dtype)
