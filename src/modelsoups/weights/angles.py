"""Angles between models' weights. Letters of array names: K models, C classes, D features."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from modelsoups.checkpoints.states import State, averaged

ALIKE = 0.5  # cosine of two models' weights: over 0.9 with one initialization, about 0 with different ones
HEAD = re.compile(r"(^|\.)(head|heads|classifier|fc|score|lm_head|qa_outputs|linear|output)(\.[\w.]*)?\.weight$")


def entry(state: State, key: str) -> Tensor:
    """Return the tensor `key`; of a `Checkpoint` only a meta tensor with its shape and dtype."""
    entries = getattr(state, "entries", None)
    if entries is None:
        return state[key]
    return torch.empty(entries[key].shape, dtype=entries[key].dtype, device="meta")


def head_of(state: State) -> str | None:
    """Return the name of the last matrix called like a head ("fc.weight"), else the last matrix."""
    matrices = [k for k in state if (e := entry(state, k)).ndim == 2 and averaged(e)]
    named = [k for k in matrices if HEAD.search(k)]
    return next(reversed(named or matrices), None)


def cosines(gram_KK: Tensor) -> Tensor:
    """Return (K, K) cosines from (K, K) inner products: 1 if both vectors are 0, 0 if one is."""
    norms_K = gram_KK.diagonal().clamp_min(0).sqrt()
    zero_K = norms_K == 0
    scale_K = norms_K.masked_fill(zero_K, 1)
    found_KK = (gram_KK / scale_K.outer(scale_K)).clamp(-1, 1)
    found_KK[zero_K.outer(zero_K)] = 1.0
    return found_KK


def from_first(gram_KK: Tensor) -> Tensor:
    """Return the (K-1, K-1) inner products of (model - model 0) from the models' (K, K) ones."""
    to_first_K = gram_KK[0]
    return (gram_KK - to_first_K[:, None] - to_first_K[None, :] + to_first_K[0])[1:, 1:]


def odd_ones(names: Sequence[str], cosines_KK: Tensor, alike: float = ALIKE) -> list[str]:
    """Return the models outside the largest group with cosines >= `alike`; all if there is none."""
    alike_K = (cosines_KK >= alike).sum(dim=1)
    if int(alike_K.min()) == len(names):
        return []
    most = int(alike_K.max())
    if most == 1:
        return list(names)
    crowd = cosines_KK[int(alike_K.argmax())] >= alike
    return [n for n, inside in zip(names, crowd.tolist(), strict=True) if not inside]


def reordered(expected_CD: Tensor, got_CD: Tensor) -> int:
    """Return how many rows (classes) of head `got_CD` have another index in head `expected_CD`.

    Rows are matched by the largest cosine. Returns 0 if they do not match one to one.
    """
    rows = [torch.nn.functional.normalize(t.double(), dim=1) for t in (expected_CD, got_CD)]
    best_C, places_C = (rows[1] @ rows[0].T).max(dim=1)
    moved = int((places_C != torch.arange(len(places_C))).sum())
    return moved if len(places_C.unique()) == len(places_C) and float(best_C.median()) >= ALIKE else 0
