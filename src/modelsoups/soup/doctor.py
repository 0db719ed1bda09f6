"""Why souping will or will not work for these checkpoints, before any work is done.

A soup needs one architecture, one initialization and one head (section 2; section 3.3 and figure 3: the smaller the
error at midpoints, the better), finite numbers and, where there is a BatchNorm, new statistics. Angles and norms are
over tensors of two or more dimensions, as in J.1. Legend: K checkpoints.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from modelsoups.checkpoints.layouts import difference, grouped, layout_of
from modelsoups.checkpoints.states import State, averaged, state_sha256
from modelsoups.soup.batchnorm import has_batchnorm
from modelsoups.weights.angles import ALIKE, cosines, entry, from_first, head_of, odd_ones, reordered
from modelsoups.weights.coefficient_gradients import grams
from modelsoups.weights.state_dicts import interpolate

FOREIGN = 0.2  # cosine of one tensor below which it does not come from where the others' does
SCALE = 2.0  # times the median length: no fine-tuning, a factor
SAME = 0.95  # cosine above which two tensors point the same way
UNTRAINED = 1e-20  # squared distance from the initialization, of its squared length: rounding
FAR = 3.0  # times the median distance from the others: an ingredient that left the basin
BARRIER = 0.02  # accuracy that the midpoint of two models may lie below their mean
WEAK = 0.1  # accuracy that an ingredient may lie below the best
ADAPTER = re.compile(r"(^|\.)lora_[AB]\b|\.lora_(A|B|down|up)\.|(^|\.)hada_w")


@dataclass(frozen=True)
class Finding:
    """One thing that stands in the way: its cause, the checkpoints concerned, the numbers, and whether it is fatal."""

    cause: str
    who: tuple[str, ...]
    text: str
    fatal: bool


@dataclass
class Diagnosis:
    """Findings, and the K x K matrix of angles between models in degrees: of their weights, or from_init of what the
    fine-tuning changed."""

    names: list[str]
    findings: list[Finding] = field(default_factory=list)
    angles_KK: Tensor | None = None
    from_init: bool = False
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
    usable = _layouts(found, _whole_models(found, states))
    if not usable:
        return found
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


def _whole_models(found: Diagnosis, states: Mapping[str, State]) -> dict[str, State]:
    """Without those that are no models to average: adapters, and quantized weights."""
    left = dict(states)
    adapters = [n for n, state in states.items() if any(ADAPTER.search(k) for k in state)]
    text = "adapters (LoRA), whose factors must not be averaged: merge each into its base model first"
    found.add("adapter", adapters, text)
    quantized = [n for n, state in states.items() if n not in adapters and _is_quantized(state)]
    found.add("quantized", quantized, "weights are whole numbers, which are not averaged: use the unquantized model")
    for name in [*adapters, *quantized]:
        del left[name]
    return left


def _is_quantized(state: State) -> bool:
    matrices = [key for key in state if entry(state, key).ndim >= 2]
    whole = [key for key in matrices if not entry(state, key).dtype.is_floating_point]
    return sum(entry(state, k).numel() for k in whole) * 2 > sum(entry(state, k).numel() for k in matrices)


def _layouts(found: Diagnosis, states: Mapping[str, State]) -> dict[str, State]:
    """The largest group of states with equal layouts; a finding for each of the other groups."""
    if not states:
        return {}
    layouts = {name: layout_of(state) for name, state in states.items()}
    groups = grouped(layouts)
    usual = max(groups, key=len)
    expected = layouts[usual[0]]
    for names in groups:
        layout = layouts[names[0]]
        odd = difference(expected, layout)
        if odd is None:
            continue
        key, a, b = odd.key, odd.expected, odd.found
        if (prefix := _prefix(expected, layout)) is not None:
            found.add("names", names, f"every name {prefix}: rename, or save the inner model's state_dict()")
        elif a is None or b is None:
            where = "is not in the others" if a is None else "is missing"
            found.add("keys", names, f"tensor {key} {where}: another architecture")
        elif a.rpartition(" ")[0] != b.rpartition(" ")[0]:
            turned = re.findall(r"\d+", a)[:2] == re.findall(r"\d+", b)[1::-1] and a.count(",") == 1
            if turned:
                found.add("transposed", names, f"tensor {key} is {b}, {a} in {usual[0]}: transpose it back")
                continue
            found.add("shapes", names, f"tensor {key} is {b}, {a} in {usual[0]}: another size, or other classes")
        else:
            found.add("dtypes", names, f"tensor {key} is {b}, {a} in {usual[0]}: convert to one dtype")
    return {name: states[name] for name in usual}


def _prefix(expected: Mapping[str, str], layout: Mapping[str, str]) -> str | None:
    """What makes the names differ, where they are the others' behind or without one prefix."""
    for longer, shorter, text in ((layout, expected, "begins with"), (expected, layout, "lacks the prefix")):
        ends = (k.removesuffix(next(iter(shorter))) for k in longer if k.endswith(next(iter(shorter))))
        for prefix in ends:
            if prefix and {prefix + k: v for k, v in shorter.items()} == dict(longer):
                return f"{text} {prefix}"
    return None


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


def _geometry(found: Diagnosis, states: Mapping[str, State], init: State | None) -> None:
    first = next(iter(states.values()))
    matrices = [k for k in first if (e := entry(first, k)).ndim >= 2 and averaged(e)]
    if init is not None and (odd := [k for k in matrices if k not in init or init[k].shape != first[k].shape]):
        found.add("not from init", ["all"], f"tensor {odd[0]} of the initialization is missing or of another shape")
        init = None
    models = list(states.values())
    grams_by_key = grams(models if init is None else [init, *models], matrices)
    start = 0 if init is None else 1
    own = {key: gram_KK[start:, start:] for key, gram_KK in grams_by_key.items()}
    head = head_of(first)
    body = [k for k in matrices if k != head] or matrices
    body_KK = cosines(_sum(own, body))
    often = Counter(name for key in body for name in odd_ones(found.names, cosines(own[key])))
    strangers = [name for name in odd_ones(found.names, body_KK) if 2 * often[name] > len(body)]
    found.add(
        "initialization",
        strangers,
        f"no shared initialization: cosine to the others' weights {float(body_KK.min()):.2f}, over 0.9 when "
        "fine-tuned from one model",
    )
    if not strangers:
        _layers(found, states, {key: own[key] for key in body if len(body) > 1})
        _scales(found, own)
        if head is not None and len(body) < len(matrices):
            _heads(found, states, head, own[head])
    whole_KK = _sum(own, matrices)
    found.angles_KK = torch.rad2deg(cosines(whole_KK).acos())
    if init is not None:
        _from_init(found, _sum(grams_by_key, matrices))
    if len(models) > 2 and not strangers:
        _far(found, whole_KK)


def _sum(grams_by_key: Mapping[str, Tensor], keys: Iterable[str]) -> Tensor:
    return torch.stack([grams_by_key[key] for key in keys]).sum(dim=0)


def _layers(found: Diagnosis, states: Mapping[str, State], grams_by_key: Mapping[str, Tensor]) -> None:
    """A tensor of one model that is unlike the others', in a model that is like them otherwise."""
    odd: dict[str, tuple[str, float]] = {}
    for key, gram_KK in grams_by_key.items():
        cosines_KK = cosines(gram_KK)
        for name in odd_ones(found.names, cosines_KK, alike=FOREIGN):
            odd.setdefault(name, (key, float(cosines_KK.min())))
    if len(odd) == len(states):
        odd = {}  # nothing to compare with: a tensor that everybody trained from scratch
    for name, (key, cosine) in odd.items():
        other = next((n for n in found.names if n not in odd), None)
        mine = states[name][key]
        turned = other is not None and mine.ndim == 2 and mine.shape[0] == mine.shape[1]
        if turned and other is not None and _cosine(mine.T, states[other][key]) >= ALIKE:
            found.add("transposed", [name], f"tensor {key} is transposed: transpose it back")
        else:
            text = f"tensor {key} is unlike the others' (cosine {cosine:.2f}): made anew, or its units in another order"
            found.add("layer", [name], text)


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.double().flatten(), b.double().flatten(), dim=0))


def _scales(found: Diagnosis, grams_by_key: Mapping[str, Tensor]) -> None:
    """The same direction at another length: weights multiplied by a number."""
    for key, gram_KK in grams_by_key.items():
        norms_K = gram_KK.diagonal().clamp_min(0).sqrt()
        if not bool((norms_K > 0).all()):
            continue
        ratios_K = norms_K / norms_K.median()
        for name, ratio in zip(found.names, ratios_K.tolist(), strict=True):
            named = {n for f in found.findings if f.cause == "scale" for n in f.who}
            if (ratio > SCALE or ratio < 1 / SCALE) and name not in named and float(cosines(gram_KK).min()) > SAME:
                found.add("scale", [name], f"tensor {key} is {ratio:.3g} times as long as the others': scale it back")


def _heads(found: Diagnosis, states: Mapping[str, State], head: str, gram_KK: Tensor) -> None:
    cosines_KK = cosines(gram_KK)
    odd = odd_ones(found.names, cosines_KK)
    usual = next((n for n in found.names if n not in odd), found.names[0])
    moved = {n: reordered(states[usual][head], states[n][head]) for n in found.names if n != usual}
    permuted = [n for n, rows in moved.items() if rows]
    if permuted:
        text = f"{max(moved.values())} classes of {head} are in another order than in {usual}: put them in one order"
        found.add("class order", permuted, text)
        odd = [n for n in odd if n not in permuted and len(odd) < len(found.names)]
    text = f"different or random heads: cosine of {head} down to {float(cosines_KK.min()):.2f}; start all from one head"
    found.add("heads", odd, text)


def _from_init(found: Diagnosis, joint_KK: Tensor) -> None:
    """joint_KK: inner products of the initialization, which comes first, and the models."""
    to_init_K = cosines(joint_KK)[0, 1:]
    foreign = [n for n, c in zip(found.names, to_init_K.tolist(), strict=True) if c < ALIKE]
    found.add("not from init", foreign, f"cosine to the initialization {float(to_init_K.min()):.2f}: not its child")
    deltas_KK = from_first(joint_KK)
    least = UNTRAINED * float(joint_KK[0, 0])
    same = [n for n, d in zip(found.names, deltas_KK.diagonal().tolist(), strict=True) if d <= least]
    found.add("untrained", same, "the same weights as the initialization: nothing was learned", fatal=False)
    found.angles_KK, found.from_init = torch.rad2deg(cosines(deltas_KK).acos()), True


def _far(found: Diagnosis, whole_KK: Tensor) -> None:
    centred = whole_KK.diagonal() - 2 * whole_KK.mean(dim=1) + whole_KK.mean()
    distances = centred.clamp_min(0).sqrt()
    median = float(distances.median())
    far = [n for n, d in zip(found.names, distances.tolist(), strict=True) if median > 0 and d > FAR * median]
    ratio = float(distances.max()) / median if median else 0.0
    found.add("far", far, f"{ratio:.1f} times as far from the mean as the median ingredient", fatal=False)


# ---- with data ----


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
