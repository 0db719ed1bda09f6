"""Check whether checkpoints can be averaged into a soup, and report what prevents it.

The models of a soup must have one architecture, initialization and head (section 2) and finite
weights; the mean of two models should be about as accurate as they are (section 3.3, figure 3).
BatchNorm needs new statistics. Angles and norms are over tensors of two or more dimensions (J.1).
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations, compress

import torch
from torch import Tensor

from modelsoups.checkpoints.layouts import difference, grouped, layout_of
from modelsoups.checkpoints.states import State, averaged, is_finite, state_sha256
from modelsoups.checkpoints.tensors import Checkpoint
from modelsoups.soup.batchnorm import statistics_differ
from modelsoups.soup.diagnosis import Diagnosis
from modelsoups.soup.refusals import configs, is_adapter, is_placeholder, is_quantized
from modelsoups.weights.angles import ALIKE, cosines, entry, from_first, head_of, odd_ones, reordered
from modelsoups.weights.coefficient_gradients import grams
from modelsoups.weights.state_dicts import interpolate

FOREIGN = 0.2  # cosine to the other models below which a tensor has a different origin
SCALE = 2.0  # ratio of a tensor's norm to the median norm that fine-tuning does not reach
SAME = 0.95  # cosine above which two tensors have the same direction
UNTRAINED = 1e-20  # relative squared distance from the initialization that is only rounding
FAR = 3.0  # distance from the mean over the median distance: an ingredient outside the basin
BARRIER = 0.02  # accuracy by which the midpoint of two models may lie below their mean
WEAK = 0.1  # accuracy by which an ingredient may lie below the best


def examine(
    states: Mapping[str, State], init: State | None = None, accuracy: Callable[[State], float] | None = None
) -> Diagnosis:
    """Compare the names, shapes, values, heads, angles and norms of checkpoints' tensors.

    With `accuracy` (state dict -> 0 to 1), the mean of each pair is evaluated too. Checkpoints with
    NaN or with other shapes than most are reported and left out. ValueError for fewer than two.

        found = examine({"a": state_a, "b": state_b}, init=pretrained)
        print(found.verdict())
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
        if statistics_differ(list(usable.values())):
            found.add("batchnorm", ["all"], "BatchNorm: re-estimate the running statistics after mixing", fatal=False)
        if accuracy is not None:
            _midpoints(found, usable, accuracy)
    return found


def _whole_models(found: Diagnosis, states: Mapping[str, State]) -> dict[str, State]:
    """Report LoRA adapters and quantized or empty weights, and return the other checkpoints.

    Also reports the first of these whose config.json differs from that of the first checkpoint.
    """
    adapters, quantized, empty, whole = [], [], [], {}
    for name, state in states.items():
        if is_adapter(state):
            adapters.append(name)
        elif is_quantized(state):
            quantized.append(name)
        elif is_placeholder(state):
            empty.append(name)
        else:
            whole[name] = state
    text = "adapters (LoRA), whose factors must not be averaged: merge each into its base model first"
    found.add("adapter", adapters, text)
    text = "quantized weights (integers or scaled float8) cannot be averaged: use the original"
    found.add("quantized", quantized, text)
    text = "weights have no elements, as DeepSpeed's ZeRO-3 saves them: save the gathered weights"
    found.add("empty", empty, text)
    opened = [state for state in whole.values() if isinstance(state, Checkpoint)]
    for cause, sentence in configs(opened) if opened else []:
        found.add_sentence(cause, sentence)
    return whole


def _layouts(found: Diagnosis, states: Mapping[str, State]) -> dict[str, State]:
    """Report checkpoints whose tensor names, shapes or dtypes are unusual; return the others."""
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
        if (begins_with := _prefix(expected, layout)) is not None:
            found.add(
                "names", names, f"every tensor name {begins_with}: rename them, or save the inner model's state_dict()"
            )
        elif a is None or b is None:
            where = "is missing in most others" if a is None else "is missing"
            found.add("keys", names, f"tensor {key} {where}: another architecture")
        else:
            cause, cure = "shapes", "another model size, or other classes"
            if a.rpartition(" ")[0] == b.rpartition(" ")[0]:
                cause, cure = "dtypes", "convert all to one dtype, or give mix --dtype float32"
            elif re.findall(r"\d+", a)[:2] == re.findall(r"\d+", b)[1::-1] and a.count(",") == 1:
                cause, cure = "transposed", "transpose it back"
            found.add(cause, names, f"tensor {key} is {b}, but {a} in {usual[0]}: {cure}")
    return {name: states[name] for name in usual}


def _prefix(expected: Mapping[str, str], layout: Mapping[str, str]) -> str | None:
    """Return "begins with P" or "lacks the prefix P" if names differ by a prefix P, else None."""
    for longer, shorter, text in ((layout, expected, "begins with"), (expected, layout, "lacks the prefix")):
        ends = (k.removesuffix(next(iter(shorter))) for k in longer if k.endswith(next(iter(shorter))))
        for prefix in ends:
            if prefix and {prefix + k: v for k, v in shorter.items()} == dict(longer):
                return f"{text} {prefix}"
    return None


def _numbers(found: Diagnosis, states: dict[str, State]) -> dict[str, State]:
    """Report checkpoints with NaN or infinity, and duplicates; return those with finite weights."""
    finite: dict[str, State] = {}
    same: dict[str, list[str]] = defaultdict(list)
    for name, state in states.items():
        bad = next((k for k in state if averaged(state[k]) and not is_finite(state[k])), None)
        if bad is None:
            finite[name] = state
        else:
            found.add("nan", [name], f"tensor {bad} contains NaN or infinity: leave the checkpoint out")
        same[state_sha256(state)].append(name)
    for names in same.values():
        if len(names) > 1:
            text, fatal = "the same weights, which count more than once: keep one", len(names) == len(states)
            found.add("duplicates", names, text, fatal)
    return finite


def _geometry(found: Diagnosis, states: Mapping[str, State], init: State | None) -> None:
    first = next(iter(states.values()))
    matrices = [k for k in first if (e := entry(first, k)).ndim >= 2 and averaged(e)]
    if init is not None and (odd := [k for k in matrices if k not in init or init[k].shape != first[k].shape]):
        found.add("not from init", ["all"], f"tensor {odd[0]} of the initialization is missing or has another shape")
        init = None
    if not matrices:
        found.add("no matrices", ["all"], "no tensor is a matrix, so there are no angles to compare", fatal=False)
        return
    models = list(states.values())
    grams_by_key = grams(models if init is None else [init, *models], matrices)
    start = 0 if init is None else 1
    own = {key: gram_KK[start:, start:] for key, gram_KK in grams_by_key.items()}
    head = head_of(first)
    body = [k for k in matrices if k != head] or matrices
    strangers = _initialization(found, own, body)
    if not strangers:
        if len(body) > 1:
            _layers(found, states, {key: own[key] for key in body})
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


def _initialization(found: Diagnosis, own: Mapping[str, Tensor], body: Sequence[str]) -> list[str]:
    """Report and return models whose weights have a low cosine to the others in most tensors."""
    body_KK = cosines(_sum(own, body))
    often: Counter[str] = Counter()
    for key in body:
        often.update(odd_ones(found.names, cosines(own[key])))
    strangers = [name for name in odd_ones(found.names, body_KK) if 2 * often[name] > len(body)]
    lowest = f"cosine of the weights to the other models is {float(body_KK.min()):.2f}, usually over 0.9"
    found.add("initialization", strangers, f"no shared initialization, or far too high a learning rate: {lowest}")
    return strangers


def _layers(found: Diagnosis, states: Mapping[str, State], grams_by_key: Mapping[str, Tensor]) -> None:
    """Report for each model the first tensor with a very low cosine to the others' tensor.

    Only a warning if no two models agree in a tensor: it may have been zero at the start of all.
    """
    odd: dict[str, tuple[str, float]] = {}
    for key, gram_KK in grams_by_key.items():
        cosines_KK = cosines(gram_KK)
        for name in odd_ones(found.names, cosines_KK, alike=FOREIGN):
            odd.setdefault(name, (key, float(cosines_KK.min())))
    if len(odd) == len(states):
        key, cosine = next(iter(odd.values()))
        text = f"tensor {key} differs in all models (cosine {cosine:.2f}); if it was random at the start of each"
        found.add("layer", list(odd), f"{text}, as a new layer of transformers is, start all from one", fatal=False)
        return
    for name, (key, cosine) in odd.items():
        other = next(n for n in found.names if n not in odd)
        mine, theirs = states[name][key], states[other][key]
        square = mine.ndim == 2 and mine.shape[0] == mine.shape[1]
        flat = mine.T.double().flatten(), theirs.double().flatten()
        if square and float(torch.nn.functional.cosine_similarity(*flat, dim=0)) >= ALIKE:
            found.add("transposed", [name], f"tensor {key} is transposed: transpose it back")
        else:
            why = "reinitialized, or its units are in a different order"
            found.add("layer", [name], f"tensor {key} has cosine {cosine:.2f} to the other models: {why}")


def _scales(found: Diagnosis, grams_by_key: Mapping[str, Tensor]) -> None:
    """Report models with a tensor in the other models' direction, but a norm far from theirs."""
    named: set[str] = set()
    for key, gram_KK in grams_by_key.items():
        norms_K = gram_KK.diagonal().clamp_min(0).sqrt()
        if not bool((norms_K > 0).all()) or float(cosines(gram_KK).min()) <= SAME:
            continue
        for name, ratio in zip(found.names, (norms_K / norms_K.median()).tolist(), strict=True):
            if (ratio > SCALE or ratio < 1 / SCALE) and name not in named:
                found.add(
                    "scale", [name], f"tensor {key} has {ratio:.3g} times the models' median norm: undo this factor"
                )
                named.add(name)


def _heads(found: Diagnosis, states: Mapping[str, State], head: str, gram_KK: Tensor) -> None:
    cosines_KK = cosines(gram_KK)
    odd = odd_ones(found.names, cosines_KK)
    usual = next((n for n in found.names if n not in odd), found.names[0])
    moved = {n: reordered(states[usual][head], states[n][head]) for n in found.names if n != usual}
    permuted = list(filter(moved.get, moved))
    if permuted:
        text = f"{max(moved.values())} classes of {head} are in another order than in {usual}: reorder the rows"
        found.add("class order", permuted, text)
        odd = [] if len(odd) == len(found.names) else [n for n in odd if n not in permuted]
    text = f"different or random heads: cosine of {head} is {float(cosines_KK.min()):.2f}; start all from one head"
    found.add("heads", odd, text)


def _from_init(found: Diagnosis, joint_KK: Tensor) -> None:
    """Report models not fine-tuned from the initialization (row 0 of joint_KK), or equal to it."""
    to_init_K = cosines(joint_KK)[0, 1:]
    foreign = list(compress(found.names, (to_init_K < ALIKE).tolist()))
    text = f"cosine to the initialization is only {float(to_init_K.min()):.2f}: not fine-tuned from it"
    found.add("not from init", foreign, text)
    updates_KK = from_first(joint_KK)
    same_K = updates_KK.diagonal() <= UNTRAINED * float(joint_KK[0, 0])
    same = list(compress(found.names, same_K.tolist()))
    found.add("untrained", same, "the same weights as the initialization: nothing was learned", fatal=False)
    found.angles_KK, found.from_init = torch.rad2deg(cosines(updates_KK).acos()), True


def _far(found: Diagnosis, whole_KK: Tensor) -> None:
    squares_K = whole_KK.diagonal() - 2 * whole_KK.mean(dim=1) + whole_KK.mean()
    distances_K = squares_K.clamp_min(0).sqrt()
    median = float(distances_K.median())
    if median == 0:
        return
    far = list(compress(found.names, (distances_K > FAR * median).tolist()))
    ratio = float(distances_K.max()) / median
    found.add("far", far, f"{ratio:.1f} times as far from the mean weights as the median model", fatal=False)


def _midpoints(found: Diagnosis, states: Mapping[str, State], accuracy: Callable[[State], float]) -> None:
    models = list(states.values())
    own = list(map(accuracy, models))
    best = max(own)
    weak = list(compress(found.names, (a < best - WEAK for a in own)))
    found.add("weak", weak, f"accuracy is only {min(own):.3f}; the best model has {best:.3f}", fatal=False)
    found.midpoints_KK = torch.diag(torch.tensor(own, dtype=torch.float64))
    barriers: list[tuple[float, str]] = []
    pairs = list(combinations(range(len(models)), 2))
    for j, i in pairs:
        middle = accuracy(interpolate(models[i], models[j], 0.5))
        found.midpoints_KK[i, j] = found.midpoints_KK[j, i] = middle
        barrier = (own[i] + own[j]) / 2 - middle
        if barrier > BARRIER or not math.isfinite(barrier):
            barriers.append((barrier, f"{found.names[j]} and {found.names[i]}"))
    if barriers:
        barrier, pair = max(barriers)
        where = f"less accurate than {pair} on average ({len(barriers)} of {len(pairs)} pairs)"
        text, fatal = f"{100 * barrier:.1f} percentage points {where}: an error barrier", len(barriers) * 2 > len(pairs)
        found.add("barrier", ["midpoints"], text, fatal)
