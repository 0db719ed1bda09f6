"""Similarity of models, from weight inner products. Legend: K models, C classes, D features."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from modelsoups.checkpoints.states import State, averaged

ALIKE = 0.5  # cosine of two models' weights: over 0.9 with one initialization, about 0 with different ones
HEAD = re.compile(r"(^|\.)(head|heads|classifier|fc|score|lm_head|qa_outputs|linear|output)(\.[\w.]*)?\.weight$")


def entry(state: State, key: str) -> Tensor:
    """Return a tensor with the entry's shape and dtype; a lazy checkpoint is not read."""
    entries = getattr(state, "entries", None)
    if entries is None:
        return state[key]
    return torch.empty(entries[key].shape, dtype=entries[key].dtype, device="meta")


def head_of(state: State) -> str | None:
    """Return the name of the head's weight: the last matrix named like a head, or the last."""
    matrices = [k for k in state if (e := entry(state, k)).ndim == 2 and averaged(e)]
    named = [k for k in matrices if HEAD.search(k)]
    return next(reversed(named or matrices), None)


def cosines(gram_KK: Tensor) -> Tensor:
    """Return cosines from inner products: 1 for two zero vectors, 0 if only one is zero."""
    norms_K = gram_KK.diagonal().clamp_min(0).sqrt()
    zero_K = norms_K == 0
    scale_K = norms_K.masked_fill(zero_K, 1)
    found_KK = (gram_KK / scale_K.outer(scale_K)).clamp(-1, 1)
    found_KK[zero_K.outer(zero_K)] = 1.0
    return found_KK


def from_first(gram_KK: Tensor) -> Tensor:
    """Return inner products of (model - first model), (K-1) x (K-1), from those of the models."""
    to_first_K = gram_KK[0]
    return (gram_KK - to_first_K[:, None] - to_first_K[None, :] + to_first_K[0])[1:, 1:]


def odd_ones(names: Sequence[str], cosines_KK: Tensor, alike: float = ALIKE) -> list[str]:
    """Return the models outside the largest group of similar ones; all if no two are similar."""
    alike_K = (cosines_KK >= alike).sum(dim=1)
    if int(alike_K.min()) == len(names):
        return []
    most = int(alike_K.max())
    if most == 1:
        return list(names)
    crowd = cosines_KK[int(alike_K.argmax())] >= alike
    return [n for n, inside in zip(names, crowd.tolist(), strict=True) if not inside]


def reordered(expected_CD: Tensor, got_CD: Tensor) -> int:
    """Return how many rows of a head moved from their index in `expected_CD`; 0 unless permuted.

    Each row is matched to the expected row with the largest cosine.
    """
    rows = [torch.nn.functional.normalize(t.double(), dim=1) for t in (expected_CD, got_CD)]
    best_C, places_C = (rows[1] @ rows[0].T).max(dim=1)
    moved = int((places_C != torch.arange(len(places_C))).sum())
    return moved if len(places_C.unique()) == len(places_C) and float(best_C.median()) >= ALIKE else 0
