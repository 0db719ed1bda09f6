"""Fisher-weighted averaging of any checkpoints: every single weight has its own coefficients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modelsoups.checkpoints.layouts import check_layouts
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.holdout import Holdout
from modelsoups.soup.library import Sources, hashes, open_all
from modelsoups.soup.methods.fisher import Merge, check_weights, diagonal
from modelsoups.weights.state_dicts import EVERYTHING


def fisher(
    sources: Sources,
    holdout: Holdout,
    *,
    images: int = 256,
    weights: Sequence[float] | None = None,
    exact: bool = False,
    seed: int = 0,
) -> tuple[Soup, dict[str, Tensor]]:
    """sum_i lambda_i F_i theta_i / sum_i lambda_i F_i (Matena and Raffel 2022, arXiv:2111.09832), and the soup's name.

    F_i is the diagonal Fisher information of model i on the hold-out's first `images` (its labels are not looked at),
    lambda_i `weights` (equal). Write it with soup.mix(chosen, out, statistics=state); what is not a parameter is mixed
    with lambda. Costs a forward and a backward pass per image and model (`exact`: one for each class), and five
    copies of one model's parameters in memory. Raises ValueError as `uniform` does, and for weights not above 0.
    """
    checkpoints = open_all(sources)
    check_layouts(checkpoints)
    row = [1.0] * len(checkpoints) if weights is None else [float(w) for w in weights]
    check_weights(row, len(checkpoints))
    merge = Merge()
    index_N = torch.arange(min(images, len(holdout)))
    for checkpoint, weight in zip(checkpoints, row, strict=True):
        state = dict(checkpoint)
        batches = (holdout.batch(index_B)[0] for index_B in index_N.split(holdout.batch_size))
        information = diagonal(holdout.model, state, batches, exact=exact, seed=seed)
        if not all(bool(torch.isfinite(f).all()) for f in information.values()):
            raise ValueError(f"{checkpoint.name}: its gradients hold NaN or infinity")
        merge.add(state, information, weight)
    total, names = sum(row), tuple(c.name for c in checkpoints)
    trace = ({"images": len(index_N), "exact": exact, "seed": seed},)
    chosen = Soup("fisher", names, hashes(checkpoints), {EVERYTHING: [w / total for w in row]}, trace=trace)
    return chosen, merge.merged()
