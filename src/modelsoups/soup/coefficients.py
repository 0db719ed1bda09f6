"""The classes Soup (ingredients and coefficients, not weights) and Ingredient (one model)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from modelsoups.recipes.recipe import Recipe


@dataclass(frozen=True)
class Ingredient:
    """One fine-tuned model: its id ("000"), file, hash of weights, and hyperparameters if known."""

    id: str
    path: str
    sha256: str
    recipe: Recipe | None


@dataclass(frozen=True)
class Soup:
    """One soup: the names of the models that it averages (`ingredients`), and their coefficients.

    space: "weights", or "logits" for an ensemble. coefficients: for each layer (`layer_of` in
    weights.state_dicts) or tensor name, one number for each ingredient, in the same order; the key
    "*" is for all other tensors. hashes: of the ingredients' weights. beta multiplies the logits
    (equation 2). trace: the method's decisions or losses, in order. Raises ValueError if there is
    no ingredient, `space` is unknown, hashes or coefficients are not one for each ingredient, or a
    coefficient is not finite.
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
            raise ValueError(f"soup {self.method}: {k} ingredients but {len(self.hashes)} hashes; expected one each")
        if self.space not in ("weights", "logits"):
            raise ValueError(f"soup {self.method}: space={self.space}; expected weights or logits")
        for group, row in self.coefficients.items():
            if len(row) != k:
                raise ValueError(f"soup {self.method}: group {group} has {len(row)} coefficients for {k} ingredients")
            if odd := [c for c in row if not _is_finite(c)]:
                raise ValueError(
                    f"soup {self.method}: coefficient {odd[0]!r} of group {group}; expected finite numbers"
                )

    def __str__(self) -> str:
        """Return the soup in words: method, number of models, their names, and coefficients if these differ."""
        kind = "ensemble" if self.space == "logits" else "soup"
        row = next(iter(self.coefficients.values()))
        alike = len(self.coefficients) == 1 and len(set(row)) == 1
        named = zip(self.ingredients, row, strict=True)
        members = self.ingredients if alike or len(self.coefficients) > 1 else [f"{c:.4g} {name}" for name, c in named]
        return f"{self.method} {kind} of {len(self.ingredients)} models: {', '.join(members)}"

    def to_json(self) -> dict[str, Any]:
        d = asdict(self)
        d["coefficients"] = {group: list(map(float, row)) for group, row in self.coefficients.items()}
        return d

    @staticmethod
    def from_json(d: Mapping[str, Any]) -> "Soup":
        unknown = sorted(set(d) - {f.name for f in fields(Soup)})
        missing = sorted({"method", "ingredients", "hashes", "coefficients"} - set(d))
        if unknown or missing:
            raise ValueError(f"this JSON is not a soup: missing keys {missing}, unknown keys {unknown}")
        tuples = {k: tuple(d[k]) for k in ("ingredients", "hashes", "trace") if k in d}
        return Soup(**{**d, **tuples})


def _is_finite(coefficient: float) -> bool:
    try:
        return not isinstance(coefficient, bool) and math.isfinite(coefficient)
    except TypeError:  # text
        return False
