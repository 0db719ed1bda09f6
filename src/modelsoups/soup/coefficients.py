"""Soup: coefficients over ingredients, which is all that a soup is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # recipes and soups can be read without loading torch
    pass
from modelsoups.recipes.recipe import Recipe


@dataclass(frozen=True)
class Ingredient:
    """One fine-tuned model of the pool: its id ("000"), file, content hash, recipe and hold-out accuracy (0 to 1)."""

    id: str
    path: str
    sha256: str
    recipe: Recipe | None
    holdout_accuracy: float | None = None


@dataclass(frozen=True)
class Soup:
    """Coefficients over ingredients: all that a soup is. Mixing it is `core.weights.mix`.

    space "weights" mixes checkpoints, "logits" is an ensemble. coefficients maps a layer group (see
    `core.weights.layer_of`) to one coefficient per ingredient, in their order; the group "*" stands for every tensor
    that no other group names. temperature divides nothing unless a method learned it (beta of equation 2 multiplies
    the logits). trace keeps the decisions of the method in order.
    """

    method: str
    ingredients: tuple[str, ...]
    hashes: tuple[str, ...]
    coefficients: Mapping[str, Sequence[float]]
    space: str = "weights"
    beta: float = 1.0
    trace: tuple[Mapping[str, Any], ...] = field(default=())

    def __post_init__(self) -> None:
        k = len(self.ingredients)
        if k == 0:
            raise ValueError(f"soup {self.method}: no ingredients")
        if len(self.hashes) != k:
            raise ValueError(f"soup {self.method}: {k} ingredients but {len(self.hashes)} hashes")
        if self.space not in ("weights", "logits"):
            raise ValueError(f"soup {self.method}: space={self.space}; expected weights or logits")
        for group, row in self.coefficients.items():
            if len(row) != k:
                raise ValueError(f"soup {self.method}: group {group} has {len(row)} coefficients for {k} ingredients")

    def to_json(self) -> dict[str, Any]:
        d = asdict(self)
        d["coefficients"] = {g: [float(c) for c in row] for g, row in self.coefficients.items()}
        return d

    @staticmethod
    def from_json(d: Mapping[str, Any]) -> Soup:
        names = {f.name for f in fields(Soup)}
        unknown = sorted(set(d) - names)
        missing = sorted({"method", "ingredients", "hashes", "coefficients"} - set(d))
        if unknown or missing:
            raise ValueError(f"not a soup: missing keys {missing}, unknown keys {unknown}")
        tuples = {k: tuple(d[k]) for k in ("ingredients", "hashes", "trace") if k in d}
        return Soup(**{**d, **tuples})
