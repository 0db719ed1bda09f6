"""Selects the pairs of models that Figures 3, 4 and K.1 compare."""

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from typing import TypeVar

import numpy as np

from modelsoups.analyses.bench import Bench
from modelsoups.analyses.members import OWN, Member

T = TypeVar("T")
KINDS = {"seed": {"seed"}, "learning rate": {"lr"}, "augmentation": {"aug", "mixup"}}
SEVERAL = "several"
TOO_HIGH = 3.2  # times the first of analyse.rates; for the paper's 3e-5, 1e-4 is then too high


def with_recipes(bench: Bench, *pools: str) -> list[Member]:
    """Return the models of these pools (default: the run's own) whose hyperparameters are known."""
    return [m for m in bench.pool(*(pools or (OWN,))) if m.ingredient.recipe is not None]


def moderate(bench: Bench, lr: float) -> bool:
    """Return whether a learning rate is below 3.2 times the first of analyse.rates (3e-5)."""
    return lr < TOO_HIGH * bench.settings.rates[0]


def single_differences(bench: Bench, pools: Sequence[str]) -> list[tuple[Member, Member, str]]:
    """Return (model, model, difference) for pairs that differ only in seed, lr or augmentation.

    Models with learning rates that are not `moderate` are left out. Without such pairs, return
    others, with "several" as the difference. Return at most analyse.pairs pairs, the same number
    for each difference.
    """
    found: dict[str, list[tuple[Member, Member, str]]] = {}
    members = [m for m in with_recipes(bench, *pools) if moderate(bench, m.lr)]
    for one, two in itertools.combinations(members, 2):
        if one.ingredient.sha256 != two.ingredient.sha256:
            kind = _kind(one, two)
            found.setdefault(kind, []).append((one, two, kind))
    if len(found) > 1:
        found.pop(SEVERAL, None)
    most = max(1, bench.settings.pairs // max(1, len(found)))
    return [pair for group in found.values() for pair in spread(group, most)]


def spread(items: Sequence[T], most: int) -> list[T]:
    """Return at most `most` of the items, at evenly spaced positions."""
    if len(items) <= most:
        return list(items)
    places = np.linspace(0, len(items) - 1, most).round().astype(int)
    return [items[i] for i in sorted(set(places))]


def _kind(one: Member, two: Member) -> str:
    a, b = (asdict(m.ingredient.recipe) for m in (one, two))  # type: ignore[arg-type]
    differ = {key for key in a if a[key] != b[key]}
    kinds = [kind for kind, keys in KINDS.items() if differ and differ <= keys]
    return kinds[0] if kinds else SEVERAL
