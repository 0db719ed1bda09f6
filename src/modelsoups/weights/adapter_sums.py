"""The weighted sum of LoRA adapters as one adapter: exact (the ranks add up), or truncated.

sum_i c_i scale_i up_i @ down_i is the product of [c_1 scale_1 up_1, c_2 scale_2 up_2, ...] and of the
stacked down_i. It is truncated to rank r by a singular value decomposition, computed from the QR
decompositions of both factors, without computing the product itself (O x I numbers).
Letters: K adapters, R rank, O outputs, I inputs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from modelsoups.checkpoints.adapters import INNER, PREFIX, Adapter, Update
from modelsoups.checkpoints.states import describe
from modelsoups.checkpoints.tensors import Checkpoint, Computed, Entry, InMemory, files_of
from modelsoups.weights.state_dicts import Coefficients, of_group
from modelsoups.weights.updates import Stored, Term, Total

ROUNDING = 1e-6  # of a sum of coefficients, which may have been written with few digits
Members = list[tuple[float, Update]]  # coefficient times scale, and the update


@dataclass
class Sum:
    """The weighted sum of adapters: its tensors, the rank of each module, and notes for the user.

    same: the adapter that the sum equals, if it is the only one used and has coefficient 1.
    """

    checkpoint: Checkpoint
    ranks: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    same: Adapter | None = None


def sum_of(adapters: Sequence[Adapter], coefficients: Coefficients, rank: int | None = None) -> Sum:
    """Return sum_i c_i update_i as one adapter, whose LoRA scales (alpha / r) are 1.

    rank: truncate the rank of each module to this; None for the exact sum. Coefficients by layer
    group are found by the tensors' names in the base model. Raises ValueError, naming adapter and
    tensor, for sums of DoRA adapters, updates of different shapes, and whole tensors (biases,
    modules_to_save) that not all adapters have, or whose coefficients do not sum to 1.
    """
    rows = list(coefficients.values())
    used = [k for k in range(len(adapters)) if any(row[k] != 0 for row in rows)]
    if len(used) == 1 and all(row[used[0]] == 1 for row in rows) and rank is None:
        return Sum(replace(adapters[used[0]], notes=[]), same=adapters[used[0]])
    _check_no_dora(adapters, used)
    entries: dict[str, Entry] = {}
    whole = Sum(Checkpoint(adapters[0].name, entries))
    narrow = _keeps_dtypes(adapters, coefficients) and rank is None
    lost: dict[str, tuple[float, float]] = {}
    for module in dict.fromkeys(m for k in used for m in adapters[k].updates):
        members = _members(module, adapters, coefficients)
        down, up = _stacked(members, narrow)
        if rank is not None and rank < down.shape[0]:
            down, up, lost[module] = _truncated(down, up, rank)
        whole.ranks[module] = int(down.shape[0])
        names = (
            ("lora_embedding_A", "lora_embedding_B") if members[0][1].embedding else ("lora_A.weight", "lora_B.weight")
        )
        entries[f"{PREFIX}{module}.{names[0]}"], entries[f"{PREFIX}{module}.{names[1]}"] = down, up
        biases: list[tuple[float, Term]] = [(c, Stored(u.bias)) for c, u in members if u.bias is not None]
        if biases:
            bias = Total(biases)(0, int(up.shape[0])).flatten()
            entries[f"{PREFIX}{module}.lora_B.bias"] = InMemory(bias.to(up.dtype))
    entries |= _whole_tensors([adapters[k] for k in used], used, coefficients, whole)
    whole.notes += _notes(adapters, narrow, rank, lost)
    return whole


def _check_no_dora(adapters: Sequence[Adapter], used: Sequence[int]) -> None:
    odd = next((adapters[k] for k in used if any(u.magnitude is not None for u in adapters[k].updates.values())), None)
    if odd is not None:
        raise ValueError(
            f"{odd.name} is a DoRA adapter, and sums and multiples of DoRA updates have no exact low-rank form:"
            " give --base MODEL (base=...), which writes the full model"
        )


def _members(module: str, adapters: Sequence[Adapter], coefficients: Coefficients) -> Members:
    """Return one module's (coefficient * scale, update) pairs; ValueError if shapes differ."""
    having = [(k, a.updates[module]) for k, a in enumerate(adapters) if module in a.updates]
    first = having[0][1]
    row = of_group(f"{first.target}.weight", coefficients)
    for k, update in having:
        if _kind(update) != _kind(first):
            one = f"{_shown(update)} in {adapters[k].name} and {_shown(first)} in {adapters[having[0][0]].name}"
            raise ValueError(f"the factors of {module} are {one}: these adapters are of different models")
    return [(row[k] * u.scale, u) for k, u in having if row[k] != 0] or [(0.0, first)]


def _kind(update: Update) -> tuple[object, ...]:
    return update.embedding, update.down.shape[1:], update.up.shape[0], update.up.shape[2:]


def _shown(update: Update) -> str:
    return f"{tuple(update.down.shape)} and {tuple(update.up.shape)}"


def _keeps_dtypes(adapters: Sequence[Adapter], coefficients: Coefficients) -> bool:
    """Return whether scaling is exact in each factor's dtype: 32 bits, or scaled by powers of two.

    float16 has few exponents, so its factors must not be scaled by less than 1.
    """
    for module in dict.fromkeys(m for a in adapters for m in a.updates):
        for c, update in _members(module, adapters, coefficients):
            exact = math.frexp(abs(c))[0] in (0.5, 0.0) and (update.up.dtype != torch.float16 or abs(c) >= 1)
            if update.up.dtype.itemsize < 4 and not exact:
                return False
    return True


def _stacked(members: Members, narrow: bool) -> tuple[Entry, Entry]:
    """Return the sum's (down, up), computed when read; `narrow`: keep 16-bit dtypes."""
    rank = sum(update.rank for _, update in members)
    dtype = members[0][1].up.dtype
    for _, update in members:
        dtype = torch.promote_types(torch.promote_types(dtype, update.up.dtype), update.down.dtype)
    if not narrow:
        dtype = torch.promote_types(dtype, torch.float32)
    first = members[0][1]

    def down(start: int, stop: int) -> Tensor:
        found, before = [], 0
        for _, update in members:
            a, b = max(start, before) - before, min(stop, before + update.rank) - before
            if a < b:
                found.append(Stored(update.down)(a, b))
            before += update.rank
        return torch.cat(found)

    def up(start: int, stop: int) -> Tensor:
        return torch.cat([Stored(update.up)(start, stop) * c for c, update in members], dim=1)

    downs, ups = ([u.down for _, u in members], [u.up for _, u in members])
    shape = (int(first.up.shape[0]), rank, *first.up.shape[2:])
    return (
        Computed(dtype, (rank, *first.down.shape[1:]), down, files_of(*downs)),
        Computed(dtype, shape, up, files_of(*ups)),
    )


def _truncated(down: Entry, up: Entry, rank: int) -> tuple[Entry, Entry, tuple[float, float]]:
    """Return the best (down, up) of this rank, and squared norms of the error and of up @ down."""
    assert isinstance(down, Computed) and isinstance(up, Computed)  # noqa: PT018
    down_RI = down.rows(0, down.shape[0]).flatten(1)
    up_OR = up.rows(0, up.shape[0]).flatten(1)
    left_OQ, small_QR = torch.linalg.qr(up_OR)
    right_IP, other_PR = torch.linalg.qr(down_RI.T)
    u_Qs, values_s, v_sP = torch.linalg.svd(small_QR @ other_PR.T, full_matrices=False)
    count = min(rank, len(values_s))
    roots_r = values_s[:count].sqrt()
    new_up_Or = left_OQ @ u_Qs[:, :count] * roots_r
    new_down_rI = roots_r[:, None] * v_sP[:count] @ right_IP.T
    squares_s = values_s.square()
    lost = float(squares_s[count:].sum()), float(squares_s.sum())
    new_down = new_down_rI.to(down.dtype).reshape(count, *down.shape[1:])
    new_up = new_up_Or.to(up.dtype).reshape(up.shape[0], count, *up.shape[2:])
    return InMemory(new_down.contiguous()), InMemory(new_up.contiguous()), lost


def _whole_tensors(
    adapters: Sequence[Adapter], used: Sequence[int], coefficients: Coefficients, whole: Sum
) -> dict[str, Entry]:
    """Return the sum's biases and modules_to_save, by their names in PEFT's files."""
    found: dict[str, Entry] = {}
    for name in dict.fromkeys(n for a in adapters for n in a.whole):
        odd = next((a for a in adapters if name not in a.whole), None)
        if odd is not None:
            raise ValueError(
                f"{odd.name} has no {name}, but others have: give --base MODEL (base=...) to use its tensor"
            )
        parts = [(a, a.entries[a.whole[name]]) for a in adapters]
        first = parts[0][1]
        for a, entry in parts:
            if tuple(entry.shape) != tuple(first.shape):
                raise ValueError(
                    f"{a.name}: {name} is {describe(entry)}, expected {describe(first)} as in {adapters[0].name}"
                )
        inner = next((a.whole[name] for a in adapters if INNER in a.whole[name]), None)
        key = inner or adapters[0].whole[name]
        if not first.dtype.is_floating_point:
            found[key] = first
            whole.notes.append(f"{name}: integers are not averaged; those of {adapters[0].name} are used")
            continue
        row = [of_group(name, coefficients)[k] for k in used]
        if abs(math.fsum(row) - 1) > ROUNDING:
            what = f"the coefficients sum to {math.fsum(row):.6g}, not 1, but {name} is a tensor, not an update"
            raise ValueError(f"{adapters[0].name}: {what}: give --base MODEL (base=...)")
        rows: list[tuple[float, Term]] = [(c, Stored(e)) for c, (_, e) in zip(row, parts, strict=True)]
        dtype = first.dtype
        for _, entry in parts:
            dtype = torch.promote_types(dtype, entry.dtype)
        found[key] = Computed(dtype, tuple(first.shape), Total(rows), files_of(*(e for _, e in parts)))
    return found


def _notes(
    adapters: Sequence[Adapter], narrow: bool, rank: int | None, lost: Mapping[str, tuple[float, float]]
) -> list[str]:
    """Return notes for the user on the error of the truncation, and on dtypes that were changed."""
    notes = []
    if lost:
        errors = {module: math.sqrt(a / b) if b else 0.0 for module, (a, b) in lost.items()}
        worst = max(errors, key=lambda module: errors[module])
        total = sum(b for _, b in lost.values())
        whole = math.sqrt(sum(a for a, _ in lost.values()) / total) if total else 0.0
        notes.append(
            f"truncated to rank {rank}: {len(lost)} updates have a relative error of {whole:.2g} (Frobenius"
            f" norm), the largest in {worst} ({errors[worst]:.2g})"
        )
    dtypes = {str(u.up.dtype).removeprefix("torch.") for a in adapters for u in a.updates.values()}
    if len(dtypes) > 1:
        notes.append(f"the adapters have dtypes {' and '.join(sorted(dtypes))}: the widest is written")
    elif not narrow and dtypes & {"bfloat16", "float16"}:
        notes.append(f"the factors are written in float32, as {dtypes.pop()} cannot represent their sum exactly")
    return notes
