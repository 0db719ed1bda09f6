"""Why souping will or will not work for these checkpoints, before any work is done.

A soup needs one architecture, one initialization and one head (section 2; section 3.3 and figure 3: the smaller the
error at midpoints, the better), finite numbers and, where there is a BatchNorm, new statistics. Angles and norms are
over tensors of two or more dimensions, as in J.1. Legend: K checkpoints.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from modelsoups.core.batchnorm import has_batchnorm
from modelsoups.core.checkpoints import averaged, describe, state_sha256
from modelsoups.core.weights import interpolate

State = Mapping[str, Tensor]
ALIKE = 0.5  # cosine between two models' weights: over 0.9 from one initialization, about 0 from two
FAR = 3.0  # times the median distance from the others: an ingredient that left the basin
BARRIER = 0.02  # accuracy that the midpoint of two models may lie below their mean
WEAK = 0.1  # accuracy that an ingredient may lie below the best
HEAD = re.compile(r"(^|\.)(head|heads|classifier|fc|score|lm_head|qa_outputs|linear|output)(\.[\w.]*)?\.weight$")


@dataclass(frozen=True)
class Finding:
    """One thing that stands in the way: its cause, the checkpoints concerned, the numbers, and whether it is fatal."""

    cause: str
    who: tuple[str, ...]
    text: str
    fatal: bool


@dataclass
class Diagnosis:
    """Findings, and the K x K matrix of angles between models (degrees; from the initialization where it is given)."""

    names: list[str]
    findings: list[Finding] = field(default_factory=list)
    angles_KK: Tensor | None = None
    midpoints_KK: Tensor | None = None

    @property
    def healthy(self) -> bool:
        return not any(f.fatal for f in self.findings)

    @property
    def causes(self) -> set[str]:
        return {f.cause for f in self.findings}

    def add(self, cause: str, who: Sequence[str], text: str, fatal: bool = True) -> None:
        if who:
            self.findings.append(Finding(cause, tuple(who), f"{_list(who)}: {text}", fatal))

    def verdict(self) -> str:
        fatal = [f.text for f in self.findings if f.fatal]
        if fatal:
            return f"a soup of these will fail: {'; '.join(fatal)}"
        doubts = [f.text for f in self.findings]
        return f"a soup of these can succeed{', but: ' + '; '.join(doubts) if doubts else ''}"


def examine(
    states: Mapping[str, State], init: State | None = None, accuracy: Callable[[State], float] | None = None
) -> Diagnosis:
    """Look at layouts, numbers, heads, angles and norms; with `accuracy` (0 to 1) also at pairwise midpoints.

    One tensor of each model is in memory at a time. Checkpoints unlike the largest group of equal layouts, and those
    with NaN, are named and left out of the geometry. Raises ValueError for fewer than two checkpoints.
    """
    if len(states) < 2:
        raise ValueError(f"{len(states)} checkpoint: expected at least two to compare")
    found = Diagnosis(list(states))
    usable = _layouts(found, states)
    usable = _numbers(found, usable)
    found.names = list(usable)
    if len(usable) > 1:
        _geometry(found, usable, init)
        first = next(iter(usable.values()))
        if has_batchnorm(first):
            found.add("batchnorm", ["all"], "BatchNorm: re-estimate its statistics after mixing", fatal=False)
        if accuracy is not None:
            _midpoints(found, usable, accuracy)
    return found


def _layouts(found: Diagnosis, states: Mapping[str, State]) -> dict[str, State]:
    layouts = {name: {k: _described(state, k) for k in state} for name, state in states.items()}
    groups: dict[frozenset[tuple[str, str]], list[str]] = {}
    for name, layout in layouts.items():
        groups.setdefault(frozenset(layout.items()), []).append(name)
    usual = max(groups.values(), key=len)
    expected = layouts[usual[0]]
    for names in groups.values():
        if names is usual:
            continue
        layout = layouts[names[0]]
        key = next(k for k in [*expected, *layout] if expected.get(k) != layout.get(k))
        a, b = expected.get(key), layout.get(key)
        if a is None or b is None:
            where = "is not in the others" if a is None else "is missing"
            found.add("keys", names, f"tensor {key} {where}: another architecture")
        elif a.rpartition(" ")[0] != b.rpartition(" ")[0]:
            found.add("shapes", names, f"tensor {key} is {b}, {a} in {usual[0]}: another size, or other classes")
        else:
            found.add("dtypes", names, f"tensor {key} is {b}, {a} in {usual[0]}: convert to one dtype")
    return {name: states[name] for name in usual}


def _described(state: State, key: str) -> str:
    entries = getattr(state, "entries", None)  # of a lazy checkpoint: without reading
    if entries is None:
        return describe(state[key])
    return describe(torch.empty(entries[key].shape, dtype=entries[key].dtype, device="meta"))


def _numbers(found: Diagnosis, states: dict[str, State]) -> dict[str, State]:
    broken: dict[str, str] = {}
    hashes: dict[str, list[str]] = {}
    for name, state in states.items():
        bad = next((k for k in state if averaged(state[k]) and not bool(torch.isfinite(state[k]).all())), None)
        if bad is not None:
            broken[name] = bad
        hashes.setdefault(state_sha256(state), []).append(name)
    for name, key in broken.items():
        found.add("nan", [name], f"tensor {key} holds NaN or infinity: leave it out")
    for names in hashes.values():
        if len(names) > 1:
            found.add(
                "duplicates", names, "the same weights: they count more than once", fatal=len(names) == len(states)
            )
    return {name: state for name, state in states.items() if name not in broken}


# ---- geometry ----


def head_of(state: State) -> str | None:
    """The tensor that makes the logits: the last matrix with a head's name, else the last matrix."""
    matrices = [k for k in state if state[k].ndim == 2 and averaged(state[k])]
    named = [k for k in matrices if HEAD.search(k)]
    return next(reversed(named or matrices), None)


def gram(states: Sequence[State], keys: Sequence[str], origin: State | None = None) -> Tensor:
    """Inner products of the models' tensors, minus the origin's, as one K x K matrix in float64."""
    total_KK = torch.zeros(len(states), len(states), dtype=torch.float64)
    for key in keys:
        start = 0 if origin is None else origin[key].double()
        rows_KN = torch.stack([(s[key].double() - start).flatten() for s in states])
        total_KK += rows_KN @ rows_KN.T
    return total_KK


def _cosines(gram_KK: Tensor) -> Tensor:
    norms_K = gram_KK.diagonal().clamp_min(torch.finfo(torch.float64).tiny).sqrt()
    return (gram_KK / norms_K.outer(norms_K)).clamp(-1, 1)


def _geometry(found: Diagnosis, states: Mapping[str, State], init: State | None) -> None:
    models, first = list(states.values()), next(iter(states.values()))
    matrices = [k for k in first if first[k].ndim >= 2 and averaged(first[k])]
    head = head_of(first)
    body = [k for k in matrices if k != head] or matrices
    body_KK = gram(models, body)
    strangers = _odd_ones(found.names, _cosines(body_KK))
    found.add(
        "initialization",
        strangers,
        f"no shared initialization: cosine to the others' weights {_worst(_cosines(body_KK)):.2f}, over 0.9 when "
        "fine-tuned from one model",
    )
    if head is not None and not strangers and len(body) < len(matrices):
        head_KK = _cosines(gram(models, [head]))
        text = f"different or random heads: cosine of {head} down to {_worst(head_KK):.2f}; start all from one head"
        found.add("heads", _odd_ones(found.names, head_KK), text)
    whole_KK = gram(models, matrices)
    found.angles_KK = torch.rad2deg(_cosines(whole_KK).acos())
    if init is not None:
        _from_init(found, states, init, matrices)
    if len(models) > 2 and not strangers:
        centred = whole_KK.diagonal() - 2 * whole_KK.mean(dim=1) + whole_KK.mean()
        distances = centred.clamp_min(0).sqrt()
        median = float(distances.median())
        far = [n for n, d in zip(found.names, distances.tolist(), strict=True) if median > 0 and d > FAR * median]
        ratio = float(distances.max()) / median if median else 0.0
        found.add("far", far, f"{ratio:.1f} times as far from the mean as the median ingredient", fatal=False)


def _from_init(found: Diagnosis, states: Mapping[str, State], init: State, keys: Sequence[str]) -> None:
    missing = [k for k in keys if k not in init or init[k].shape != next(iter(states.values()))[k].shape]
    if missing:
        found.add("not from init", ["all"], f"tensor {missing[0]} of the initialization is missing or of another shape")
        return
    models = list(states.values())
    joint_KK = _cosines(gram([init, *models], keys))
    foreign = [n for n, c in zip(found.names, joint_KK[0, 1:].tolist(), strict=True) if c < ALIKE]
    found.add(
        "not from init", foreign, f"cosine to the initialization {float(joint_KK[0, 1:].min()):.2f}: not its child"
    )
    deltas_KK = gram(models, keys, init)
    same = [n for n, d in zip(found.names, deltas_KK.diagonal().tolist(), strict=True) if d == 0]
    found.add("untrained", same, "the same weights as the initialization: nothing was learned", fatal=False)
    found.angles_KK = torch.rad2deg(_cosines(deltas_KK).acos())


def _odd_ones(names: Sequence[str], cosines_KK: Tensor) -> list[str]:
    """Those unlike most others; all, when no two are alike."""
    alike_K = (cosines_KK >= ALIKE).sum(dim=1)
    if int(alike_K.min()) == len(names):
        return []
    most = int(alike_K.max())
    if most == 1:
        return list(names)
    crowd = cosines_KK[int(alike_K.argmax())] >= ALIKE
    return [n for n, inside in zip(names, crowd.tolist(), strict=True) if not inside]


def _worst(cosines_KK: Tensor) -> float:
    return float(cosines_KK.min())


def _midpoints(found: Diagnosis, states: Mapping[str, State], accuracy: Callable[[State], float]) -> None:
    models = list(states.values())
    own = [accuracy(s) for s in models]
    best = max(own)
    weak = [n for n, a in zip(found.names, own, strict=True) if a < best - WEAK]
    found.add("weak", weak, f"accuracy down to {min(own):.3f}, the best has {best:.3f}", fatal=False)
    found.midpoints_KK = torch.diag(torch.tensor(own, dtype=torch.float64))
    barred: list[tuple[float, str]] = []
    for i in range(len(models)):
        for j in range(i):
            middle = accuracy(_middle(models[i], models[j]))
            found.midpoints_KK[i, j] = found.midpoints_KK[j, i] = middle
            barrier = (own[i] + own[j]) / 2 - middle
            if barrier > BARRIER or not math.isfinite(barrier):
                barred.append((barrier, f"{found.names[j]} and {found.names[i]}"))
    pairs = len(models) * (len(models) - 1) // 2
    if barred:
        barrier, pair = max(barred)
        text = f"{100 * barrier:.1f} points below the mean of {pair} ({len(barred)} of {pairs} pairs): an error barrier"
        found.add("barrier", ["midpoints"], text, fatal=len(barred) * 2 > pairs)


def _middle(a: State, b: State) -> dict[str, Tensor]:
    return interpolate(a, b, 0.5)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
