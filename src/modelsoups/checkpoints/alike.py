"""Match checkpoints of one model that were saved in different ways to the first of them.

Only differences that leave the weights unchanged are removed, each with a note: name prefixes, tied
tensors stored once in one file and twice in another, and buffers (position_ids) only in some files.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch

from modelsoups.checkpoints.names import leave_out, rename
from modelsoups.checkpoints.states import describe
from modelsoups.checkpoints.tensors import Checkpoint, Entry

INDICES = (torch.int64, torch.int32, torch.bool)  # of buffers; int8, uint8: quantized
# Other buffers that versions of a library save or not: rotary frequencies, masks of GPT-2 and Swin.
BUFFERS = re.compile(r"(^|\.)(inv_freq|masked_bias|attn_mask|relative_coords_table|_extra_state)$")
MASKS = re.compile(r"(^|\.)attn(ention)?\.(bias|mask)$")  # if they are uint8
TRIED = 4  # names of the first checkpoint that are looked for under a prefix
FEW = 4  # names that a file lacks, up to which tensors are compared to find ties


def align(checkpoints: Sequence[Checkpoint]) -> None:
    """Match names and buffers to the first checkpoint in place; `before` keeps the original."""
    first = checkpoints[0]
    odd = [c for c in checkpoints[1:] if c.entries.keys() != first.entries.keys()]
    for checkpoint in odd:
        if new := _names_as_in(first, checkpoint):
            _remember(checkpoint)
            rename(checkpoint, new)
            checkpoint.notes.append(f"its tensor names were changed to those of {first.name}")
    for checkpoint in odd:
        _tie(checkpoint, first)
        _tie(first, checkpoint)
    for checkpoint in checkpoints[1:] if odd else ():
        _tie(checkpoint, first)  # what the first gained
        _same_buffers(checkpoint, first)


def _remember(checkpoint: Checkpoint) -> None:
    """Keep a copy of the original entries in `checkpoint.before`, to compute the file's digest."""
    if checkpoint.before is None:
        checkpoint.before = replace(checkpoint, entries=dict(checkpoint.entries), tied=dict(checkpoint.tied))


def _names_as_in(first: Checkpoint, other: Checkpoint) -> dict[str, str] | None:
    """Return {old: new name} for `other` if mostly a prefix or `module.` differs from `first`."""
    best: dict[str, str] | None = None
    most = 2 * len(first.entries.keys() & other.entries.keys())
    sizes = [sum(not _is_buffer(key, entry) for key, entry in c.entries.items()) for c in (first, other)]
    for renaming in _renamings(first, other):
        new = {key: renaming(key) for key in other}
        found = 2 * len(first.entries.keys() & set(new.values()))
        if len(set(new.values())) == len(new) and found > max(most, *sizes):
            best, most = new, found
    return best


def _renamings(first: Checkpoint, other: Checkpoint) -> Iterator[Callable[[str], str]]:
    """Yield functions that may turn a name in `other` into one in `first`, as by a new prefix."""
    for start in list(first)[:TRIED]:
        for name in other:
            if name.endswith(f".{start}"):
                yield partial(_without, name.removesuffix(start))
            elif start.endswith(f".{name}"):
                yield start.removesuffix(name).__add__
    plain = {_without_module(key): key for key in first}
    if len(plain) == len(first):
        yield lambda key: plain.get(_without_module(key), key)


def _without(prefix: str, name: str) -> str:
    return name.removeprefix(prefix)


def _without_module(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != "module")


def _tie(checkpoint: Checkpoint, other: Checkpoint) -> None:
    """Add tensors that a checkpoint lacks, but that `other` ties to one that the checkpoint has."""
    missing = [key for key in other if key not in checkpoint]
    for key in missing if len(missing) <= FEW else ():
        twins = (k for k in other if k != key and k in checkpoint.entries and _is_tied(other, key, k))
        twin = next(twins, None)
        if twin is None or describe(checkpoint.entries[twin]) != describe(other.entries[key]):
            continue
        _remember(checkpoint)
        checkpoint.entries[key] = checkpoint.entries[twin]
        later, earlier = (twin, key) if other.tied.get(twin) == key else (key, checkpoint.tied.get(twin, twin))
        checkpoint.tied[later] = earlier
        checkpoint.notes.append(f"{key} is tied to {twin}, as in {other.name}")


def _is_tied(checkpoint: Checkpoint, a: str, b: str) -> bool:
    """Return whether `a` and `b` are tied, or are equal float matrices that are not constant."""
    one, two = checkpoint.entries[a], checkpoint.entries[b]
    if checkpoint.tied.get(a) == b or checkpoint.tied.get(b) == a:
        return True
    alike = len(one.shape) > 1 and one.dtype.is_floating_point and describe(one) == describe(two)
    if not alike:
        return False
    numbers = one.tensor()
    return bool((numbers != numbers.flatten()[:1]).any()) and torch.equal(numbers, two.tensor())


def _same_buffers(checkpoint: Checkpoint, first: Checkpoint) -> None:
    """If a checkpoint differs from `first` only in buffers, add missing and remove extra ones."""
    missing = [key for key in first if key not in checkpoint]
    extra = [key for key in checkpoint if key not in first]
    known = [_is_buffer(key, first.entries[key]) for key in missing]
    known += [_is_buffer(key, checkpoint.entries[key]) for key in extra]
    if not known or not all(known) or not set(first) & set(checkpoint):
        return
    _remember(checkpoint)
    for key in missing:
        checkpoint.entries[key] = first.entries[key]
    for key in extra:
        leave_out(checkpoint, key)
    for names, what in ((missing, f"taken from {first.name}"), (extra, f"left out, as {first.name} lacks them")):
        if names:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            checkpoint.notes.append(f"{shown} (buffers, not weights) {what}")


def _is_buffer(key: str, entry: Entry) -> bool:
    """Return whether a tensor is a buffer that training does not change, such as position_ids."""
    mask = entry.dtype == torch.uint8 and MASKS.search(key) is not None
    return entry.dtype in INDICES or mask or BUFFERS.search(key) is not None
