"""Model Stock (Jang et al. 2024, arXiv:2403.19522): how far to go from the initialization, from angles alone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from modelsoups.core.checkpoints import averaged

State = Mapping[str, Tensor]


def ratio(cosine: float, count: int) -> float:
    """t = K cos / (1 + (K - 1) cos), the paper's interpolation ratio for K models; K = 2: 2 cos / (1 + cos).

    The point on the way from the initialization (0) to the mean (1) that lies closest to the centre of the models'
    distribution. A negative cosine gives 0: the updates have nothing in common.
    """
    return count * cosine / (1 + (count - 1) * cosine) if cosine > 0 else 0.0


def ratios(init: State, states: Sequence[State]) -> dict[str, float]:
    """t of every tensor that mixing averages, from the mean cosine over pairs of (theta_i - theta_0).

    Needs at least two models and the initialization, no data. A tensor that no model changed has t = 1: all are equal.
    Raises ValueError for fewer than two models.
    """
    if len(states) < 2:
        raise ValueError(f"model_stock: {len(states)} model; an angle needs at least two")
    found = {}
    for key, start in init.items():
        if not averaged(start):
            continue
        deltas_KN = torch.stack([(s[key].double() - start.double()).flatten() for s in states])
        norms_K = deltas_KN.norm(dim=1)
        if not bool((norms_K > 0).all()):
            found[key] = 1.0
            continue
        cosines_KK = (deltas_KN @ deltas_KN.T) / norms_K.outer(norms_K)
        pairs = [float(cosines_KK[i, j]) for i, j in itertools.combinations(range(len(states)), 2)]
        found[key] = ratio(sum(pairs) / len(pairs), len(states))
    return found
