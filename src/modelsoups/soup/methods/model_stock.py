"""Model Stock (Jang et al. 2024, arXiv:2403.19522): how far to go from the initialization, from angles alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from modelsoups.checkpoints.states import State, averaged
from modelsoups.weights.angles import cosines, entry, from_first
from modelsoups.weights.coefficient_gradients import grams

ROUNDING = 1e-26  # squared length of an update, of its tensor's: float64's rounding of the inner products


def ratio(cosine: float, count: int) -> float:
    """t = K cos / (1 + (K - 1) cos), the paper's interpolation ratio for K models; K = 2: 2 cos / (1 + cos).

    The point on the way from the initialization (0) to the mean (1) that lies closest to the centre of the models'
    distribution. A negative cosine gives 0: the updates have nothing in common.
    """
    return count * cosine / (1 + (count - 1) * cosine) if cosine > 0 else 0.0


def ratios(init: State, states: Sequence[State]) -> dict[str, float]:
    """t of every tensor that mixing averages, from the mean cosine over pairs of (theta_i - theta_0).

    The paper derives t for one angle between all models; for more than two the mean over pairs stands for it, as in
    mergekit's model_stock. A block of all models is in memory at a time.

    Needs at least two models and the initialization, no data. A tensor that no model changed has t = 1: all are equal.
    Raises ValueError for fewer than two models.
    """
    if len(states) < 2:
        raise ValueError(f"model_stock: {len(states)} model; an angle needs at least two")
    keys = [key for key in init if averaged(entry(init, key))]
    found = {}
    for key, gram_KK in grams([init, *states], keys).items():
        deltas_KK = from_first(gram_KK)
        changed_K = deltas_KK.diagonal() > ROUNDING * gram_KK[0, 0]
        if not bool(changed_K.all()):
            found[key] = 1.0
            continue
        pairs_KK = cosines(deltas_KK).triu(diagonal=1)
        found[key] = ratio(float(pairs_KK.sum()) / math.comb(len(states), 2), len(states))
    return found
