"""Merge adapters into a base model: a checkpoint whose weights are computed when they are read.

The soup of updates is theta_0 + sum_i c_i (theta_i - theta_0), where theta_i is the base with adapter
i merged into it. Each number is computed in float64 and rounded once, to the base's dtype. Memory
does not grow with the size of the base: its tensors and the LoRA factors stay in their files.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from modelsoups.checkpoints.adapters import INNER, Adapter, Update
from modelsoups.checkpoints.names import rename
from modelsoups.checkpoints.states import describe
from modelsoups.checkpoints.tensors import Checkpoint, Computed, Entry, files_of
from modelsoups.weights.state_dicts import EVERYTHING, Coefficients, check_groups, of_group
from modelsoups.weights.updates import Merged, Stored, Term, Total

SUM = 1e-9  # how far a sum of coefficients may be from one and still leaves nothing of the base


@dataclass
class Fitted:
    """One ingredient (adapter or whole model) as full tensors, by names in the base model."""

    name: str
    rows: dict[str, Term] = field(default_factory=dict)
    reads: dict[str, tuple[Entry, ...]] = field(default_factory=dict)
    shapes: dict[str, Entry] = field(default_factory=dict)  # of tensors that it holds itself

    def of(self, name: str, base: Checkpoint) -> Term:
        """Return the rows of one tensor; the base model's if this ingredient does not change it."""
        if name in self.rows:
            return self.rows[name]
        if name not in base.entries:
            raise ValueError(
                f"{self.name}: tensor {name} is neither here nor in {base.name}; leave this ingredient out"
            )
        return Stored(base.entries[name])


def merged(adapter: Adapter, base: Checkpoint) -> Checkpoint:
    """Return the base model with one adapter merged into it, with the adapter's name and digest."""
    one = combined([adapter], {EVERYTHING: [1.0]}, base)
    one.name, one.before = adapter.name, adapter.before
    return one


def combined(checkpoints: Sequence[Checkpoint], coefficients: Coefficients, base: Checkpoint) -> Checkpoint:
    """Return theta_0 + sum_i c_i (theta_i - theta_0) for adapters or whole models theta_i.

    Raises ValueError, naming the tensor, if an adapter does not fit the base model, if a
    tensor that the base lacks is not in all ingredients, or if a layer group has no tensors.
    """
    adapters = [c for c in checkpoints if isinstance(c, Adapter)]
    base, add = renamed(base, adapters)
    fitted = [fit(c, base, add) if isinstance(c, Adapter) else fit_whole(c, base) for c in checkpoints]
    whole = Checkpoint(base.name, dict(base.entries), dict(base.tied), list(base.notes), base.folder)
    whole.parts = base.parts
    whole.files = tuple(dict.fromkeys([*base.files, *(file for c in checkpoints for file in c.files)]))
    changed = dict.fromkeys(name for one in fitted for name in one.rows)
    check_groups([*dict.fromkeys([*base.entries, *changed])], coefficients)
    for name in changed:
        entry = base.entries.get(name) or next(f.shapes[name] for f in fitted if name in f.shapes)
        if entry.dtype.is_floating_point:
            whole.entries[name] = _mixed(name, entry, fitted, of_group(name, coefficients), base)
        else:  # integers are those of the first ingredient that holds them
            whole.entries[name] = next((f.shapes[name] for f in fitted if name in f.shapes), entry)
    _untie(whole, base, changed)
    _note_differences(whole, base, changed, fitted)
    return whole


def _mixed(name: str, entry: Entry, fitted: Sequence[Fitted], row: Sequence[float], base: Checkpoint) -> Entry:
    """Return the sum for one tensor that ingredients change; ValueError if their shapes differ."""
    rest = 1 - math.fsum(row)
    used = [(c, f) for c, f in zip(row, fitted, strict=True) if c != 0]
    parts: list[tuple[float, Term]] = [(c, f.of(name, base)) for c, f in used]
    reads = [e for _, f in used for e in f.reads.get(name, ())]
    if abs(rest) > SUM:
        if name not in base.entries:
            raise ValueError(f"tensor {name} is not in the base {base.name}, so its coefficients have to sum to 1")
        parts.append((rest, Stored(base.entries[name])))
    sizes = [(f, f.shapes[name]) for _, f in used if name in f.shapes]
    shape = sizes[0][1].shape if len(sizes) == len(parts) else entry.shape
    if odd := next((pair for pair in sizes if tuple(pair[1].shape) != tuple(shape)), None):
        what = f"{odd[0].name}: tensor {name} is {tuple(odd[1].shape)}, expected {tuple(shape)}"
        raise ValueError(f"{what}: the vocabulary or the classes were resized; resize the base first")
    if name in base.entries:
        reads.append(base.entries[name])
    return Computed(entry.dtype, tuple(shape), Total(parts), files_of(*reads))


def _untie(whole: Checkpoint, base: Checkpoint, changed: Mapping[str, None]) -> None:
    """Untie tensors that are tied in the base model if one of them is changed, with a note."""
    for a, b in base.tied.items():
        if odd := [name for name in (a, b) if name in changed]:
            del whole.tied[a]
            text = f"{a} and {b} are tied in the base, and {' and '.join(odd)} was changed: both are written"
            whole.notes.append(f"{text}; a model that ties them on loading has other outputs")


def _note_differences(
    whole: Checkpoint, base: Checkpoint, changed: Mapping[str, None], fitted: Sequence[Fitted]
) -> None:
    """Add notes on changed tensors that the base model lacks or has in another shape or dtype."""
    own = {name: f.shapes[name] for f in fitted for name in f.shapes}
    if new := [name for name in changed if name not in base.entries]:
        whole.notes.append(f"{_some(new)}: not in the base, so taken from the adapters alone")
    for name in changed:
        if name in base.entries and (now := whole.entries[name].shape) != (then := base.entries[name].shape):
            text = f"{name}: {tuple(now)} in the adapters, {tuple(then)} in the base"
            whole.notes.append(f"{text}: correct the sizes in config.json, which is the base's")
    other = [n for n in changed if n in own and n in base.entries and own[n].dtype != base.entries[n].dtype]
    if other:
        text = f"{describe(own[other[0]]).rpartition(' ')[2]} in the adapters"
        kept = describe(base.entries[other[0]]).rpartition(" ")[2]
        whole.notes.append(f"{_some(other)}: {text}, written in the base's {kept}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def renamed(base: Checkpoint, adapters: Sequence[Adapter]) -> tuple[Checkpoint, str]:
    """Return the base with names as in the adapters, and a prefix to put before theirs.

    A bare model's names lack the prefix ("bert.") of a model with a head; either may be the base.
    """
    found = {_difference(adapter, base) for adapter in adapters}
    if len(found) > 1:
        raise ValueError(
            f"the adapters were trained on models of different classes; their names differ from {base.name}"
        )
    remove, add = found.pop() if found else ("", "")
    if remove:
        own = Checkpoint(base.name, dict(base.entries), dict(base.tied), list(base.notes), base.folder, base.files)
        own.parts = base.parts
        rename(own, {key: remove + key for key in base})
        own.notes.append(f"{remove} was put before its tensor names, as in the adapters")
        return own, ""
    return base, add


def _difference(adapter: Adapter, base: Checkpoint) -> tuple[str, str]:
    """Return the prefixes that the base's and the adapter's names lack; mostly both are empty."""
    targets = [update.target for update in adapter.updates.values()]
    if not targets:
        return "", ""
    first = targets[0]
    pieces = first.split(".")
    removed = [(".".join(pieces[:n]) + ".", "") for n in range(1, len(pieces))]
    added = [("", key[: -len(end)]) for key in base for end in _ends(first) if key.endswith(f".{end}")]
    for remove, add in [("", ""), *added, *removed]:
        names = (add + target.removeprefix(remove) for target in targets if target.startswith(remove))
        if all(_weight_of(name, base) is not None for name in names) and all(t.startswith(remove) for t in targets):
            return remove, add
    missing = next((t for t in targets if _weight_of(t, base) is None), first)
    raise ValueError(
        f"{adapter.name}: its module {missing} is not in the base {base.name}; give the model that it was"
        " trained on (a layer that is tied to another has no tensor of its own)"
    )


def _ends(module: str) -> tuple[str, str]:
    return f"{module}.weight", f"{module}.in_proj_weight"  # the second of torch's MultiheadAttention


def _weight_of(module: str, base: Checkpoint) -> str | None:
    return next((name for name in _ends(module) if name in base.entries), None)


def fit_whole(model: Checkpoint, base: Checkpoint) -> Fitted:
    """Return a whole model as an ingredient beside adapters; it may be the base itself."""
    if model.files and all(any(mine.samefile(file) for file in base.files) for mine in model.files):
        return Fitted(model.name)
    if odd := next((key for key in base if key not in model.entries), None):
        raise ValueError(f"{model.name}: tensor {odd} of the base {base.name} is missing")
    rows: dict[str, Term] = {key: Stored(entry) for key, entry in model.entries.items()}
    return Fitted(model.name, rows, {key: (entry,) for key, entry in model.entries.items()}, dict(model.entries))


def fit(adapter: Adapter, base: Checkpoint, add: str = "") -> Fitted:
    """Return an adapter as an ingredient; ValueError, naming the module, if it does not fit.

    add: the prefix to put before the adapter's names.
    """
    one = Fitted(adapter.name, shapes={add + name: adapter.entries[key] for name, key in adapter.whole.items()})
    for name, entry in one.shapes.items():
        one.rows[name], one.reads[name] = Stored(entry), (entry,)
    if inner := next((module for module in adapter.updates if INNER in module), None):
        why = "PEFT 0.21 adds the update of MultiheadAttention's out_proj twice, so its meaning depends on the version"
        raise ValueError(f"{adapter.name}: {inner}: {why}; merge it with merge_and_unload, and give whole models")
    weights = {m: _weight_of(add + update.target, base) or "" for m, update in adapter.updates.items()}
    starts = {module: one.shapes.get(name) or base.entries[name] for module, name in weights.items()}
    ways = {m: _turned(adapter, update, starts[m]) for m, update in adapter.updates.items()}
    usual = bool(adapter.config.get("fan_in_fan_out"))
    known = {way for m, way in ways.items() if way is not None and not adapter.updates[m].embedding}
    for module, update in adapter.updates.items():
        way, start, name = ways[module], starts[module], weights[module]
        if way is None and known - {usual}:
            why = f"{adapter.name}: {module} is square, and fan_in_fan_out is not the same for all layers"
            raise ValueError(f"{why}, so whether it is transposed is not known; merge it with merge_and_unload")
        one.rows[name] = Merged(start, update, usual if way is None else way)
        one.reads[name] = tuple(e for e in (start, update.down, update.up, update.magnitude) if e is not None)
        if update.bias is not None:
            _fit_bias(one, adapter, update, base, add)
    return one


def _fit_bias(one: Fitted, adapter: Adapter, update: Update, base: Checkpoint, add: str) -> None:
    name = f"{add}{update.target}.bias"
    own = adapter.whole.get(f"{update.target}.bias")
    start = adapter.entries[own] if own is not None else base.entries.get(name)
    if start is None or update.bias is None:
        raise ValueError(f"{adapter.name}: lora_bias is set, but {name} is not in the base {base.name}")
    one.rows[name] = Total([(1.0, Stored(start)), (update.scale, Stored(update.bias))])
    one.reads[name] = (start, update.bias)


def _turned(adapter: Adapter, update: Update, start: Entry) -> bool | None:
    """Return whether a weight is stored transposed (Conv1D, embeddings); None if it is square."""
    plain = (update.up.shape[0], *update.down.shape[1:])
    fits = {False: tuple(start.shape) == plain, True: len(plain) == 2 and tuple(start.shape) == plain[::-1]}
    if update.embedding:
        fits[False] = False
    if not start.dtype.is_floating_point:
        what = f"the base's weight of {update.module} is quantized ({describe(start)})"
        raise ValueError(f"{adapter.name}: {what}; use a base with float weights")
    if not any(fits.values()):
        found = f"its update is {plain}, and the base's weight {tuple(start.shape)}"
        raise ValueError(
            f"{adapter.name}: {update.module} does not fit: {found}; give the model that it was trained on"
        )
    return None if all(fits.values()) else fits[True]
