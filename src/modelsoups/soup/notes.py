"""Notes for the user on soups that are valid, but may be a mistake."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from modelsoups.checkpoints.states import averaged, is_finite
from modelsoups.checkpoints.tensors import Checkpoint, Entry
from modelsoups.soup.batchnorm import has_batchnorm, statistics_differ
from modelsoups.soup.coefficients import Soup
from modelsoups.weights.angles import ALIKE, head_of

MATRICES, SPOTS, LEAST = 8, 2, 1024  # matrices that are sampled, spots in each, numbers of a spot
ROUNDING = 1e-6  # of a sum of coefficients, which may have been written with few digits


def notes_on(chosen: Soup, of_updates: bool = False) -> list[str]:
    """Return notes on coefficients that do not sum to 1, equal ingredients, and equal scores.

    of_updates: whether the coefficients multiply adapters' updates, which are added to a base.
    """
    found = []
    if len(chosen.ingredients) == 1 and not chosen.trace:
        found.append("there is only one checkpoint, so nothing is averaged")
    sums = {group: math.fsum(row) for group, row in chosen.coefficients.items()}
    odd = {group: total for group, total in sums.items() if abs(total - 1) > ROUNDING}
    if odd:
        group, total = next(iter(odd.items()))
        where = "" if group == "*" else f" of {group}" + (f" and {len(odd) - 1} more" if len(odd) > 1 else "")
        what = "the weights are scaled by this sum; divide the coefficients by it"
        if of_updates:
            what = "this scales the updates, but not the base model"
        found.append(f"the coefficients{where} sum to {total:.6g}, not 1: {what}")
    names: dict[str, list[str]] = {}
    for name, digest in zip(chosen.ingredients, chosen.hashes, strict=True):
        names.setdefault(digest, []).append(name)
    for same in names.values():
        if len(same) > 1:
            found.append(f"{' and '.join(same)} contain the same weights, which are averaged more than once")
    scores = [step["correct"] for step in chosen.trace if "correct" in step and "kept" in step]
    if len(scores) > 1 and scores[0] is not None and all(score == scores[0] for score in scores):
        found.append(
            f"all {len(scores)} evaluations gave the same score ({_short(scores[0])}), so it had no influence; {WHY}"
        )
    return found


def _short(score: float | Sequence[float]) -> str:
    each = score if isinstance(score, Sequence) else [score]
    return ", ".join(f"{metric:.6g}" for metric in each)


WHY = "does the evaluator load the state dict that it receives?"


def origin_notes(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Return a note if a model seems to have another initialization; samples 8 matrices."""
    first = checkpoints[0]
    matrices = [key for key, entry in first.entries.items() if len(entry.shape) > 1 and averaged(entry)]
    head = head_of(first)
    body = [key for key in matrices if key != head and math.prod(first.entries[key].shape) >= LEAST]
    some = [body[len(body) * n // MATRICES] for n in range(MATRICES)] if len(body) > MATRICES else body
    expected = [_sample(first.entries[key]) for key in some]
    for other in checkpoints[1:] if len(some) > 1 else ():
        samples = [_sample(other.entries[key]) for key in some]
        cosines = [_cosine(a, b) for a, b in zip(expected, samples, strict=True)]
        if 2 * sum(cosine < ALIKE for cosine in cosines) > len(some):
            what = f"{other.name} and {first.name} seem to have different initializations"
            lowest = f"cosine of their weights down to {min(cosines):.2f}; over 0.9 is usual"
            return [f"{what} ({lowest}): a soup of such models is no better than chance; run `modelsoups doctor`"]
    return []


def _cosine(one: np.ndarray, two: np.ndarray) -> float:
    """Return the cosine of two vectors, 0 if one is zero; numpy takes a tenth of torch's time."""
    lengths = math.sqrt(float(one @ one) * float(two @ two))
    return float(one @ two) / lengths if lengths else 0.0


def _sample(entry: Entry) -> np.ndarray:
    """Return SPOTS short blocks of a tensor's values, in float64."""
    size = math.prod(entry.shape)
    length = min(LEAST, size // SPOTS)
    starts = [size * spot // SPOTS for spot in range(SPOTS)]
    values = np.concatenate([entry.block(start, start + length) for start in starts])
    return torch.from_numpy(values).view(entry.dtype).double().numpy()


def batchnorm_notes(checkpoints: Sequence[Checkpoint], statistics: Mapping[str, Tensor] | None) -> list[str]:
    """Return a note if BatchNorm statistics need re-estimation, or were re-estimated needlessly."""
    fresh = has_batchnorm(statistics or ())
    if not has_batchnorm(checkpoints[0]) or len(checkpoints) < 2:
        return []
    if statistics_differ(checkpoints):
        text = "BatchNorm: averaged statistics do not fit the mixed weights; use --batchnorm or soup.reestimate"
        return [] if fresh else [text]
    if not fresh:
        return []
    same = "the checkpoints have equal running statistics, as if these were frozen in training"
    return [f"BatchNorm: {same}; re-estimated statistics can make the soup worse, so evaluate the soup with both"]


def check_statistics(first: Checkpoint, statistics: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Raise ValueError if a name or shape in `statistics` is not in `first`, or a value is NaN.

    dtype: that in which floats are written, by default the dtype in `first`.
    """
    for name, tensor in statistics.items():
        if name not in first.entries:
            raise ValueError(f"statistics: tensor {name} is not in {first.name}")
        expected = first.entries[name]
        if not isinstance(tensor, Tensor):
            raise ValueError(f"statistics: {name} is a {type(tensor).__name__}; expected a tensor")
        if tuple(tensor.shape) != tuple(expected.shape):
            raise ValueError(f"statistics: tensor {name} is {tuple(tensor.shape)}; expected {tuple(expected.shape)}")
        written = dtype if dtype is not None and averaged(expected) else expected.dtype
        if not is_finite(tensor.to(written)):
            raise ValueError(f"statistics: tensor {name} contains NaN or infinity, or does not fit into {written}")
