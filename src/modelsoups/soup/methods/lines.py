"""LiNeS (Wang et al. 2024, arXiv:2410.17146): updates scaled linearly with depth."""

from __future__ import annotations

from collections.abc import Iterable

from modelsoups.weights.angles import HEAD
from modelsoups.weights.state_dicts import EVERYTHING, is_block, layer_of


def scales(names: Iterable[str], alpha: float, beta: float) -> dict[str, float]:
    """lambda_l = alpha + beta (l - 1) / (L - 1) for block l of L, by layer group.

    As in the authors' code everything outside of the blocks has alpha, but for a classification head after the last
    block (theirs is no part of the fine-tuned model), which counts as block L. Order is that of names.
    Raises ValueError for a model in which fewer than two blocks are found.
    """
    names = list(names)
    groups = list(dict.fromkeys(map(layer_of, names)))
    blocks = list(dict.fromkeys(layer_of(name) for name in names if is_block(name)))
    if len(blocks) < 2:
        raise ValueError(f"lines: {len(blocks)} numbered blocks found; depth needs at least two")
    found, passed = {}, 0
    for group in groups:
        position = 0
        if group in blocks:
            position = passed
            passed += 1
        elif passed == len(blocks) and HEAD.search(f"{group}.weight"):
            position = len(blocks) - 1
        found[group] = alpha + beta * position / (len(blocks) - 1)
    return {**found, EVERYTHING: alpha}
