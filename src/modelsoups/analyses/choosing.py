"""Selects soups by hold-out accuracy, from the models of a run or of its additional pools."""

from collections.abc import Sequence
from typing import Any

from modelsoups import soup
from modelsoups.analyses.bench import Bench, kept
from modelsoups.analyses.members import Unavailable
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.soup.methods import METHODS


def need_holdout(bench: Bench) -> None:
    """Raise Unavailable if the hold-out images have not been prepared."""
    if bench.holdout not in bench.experiment.sets.evaluated():
        raise Unavailable(f"the analysis needs the hold-out {bench.holdout}: run modelsoups prepare")


def choose(bench: Bench, ingredients: Sequence[Ingredient], method: str, **options: Any) -> Soup:
    """Return the soup that a method, such as "greedy", selects from the models; it is cached."""
    strict = {"strict": bench.strict} if method.startswith("greedy") else {}
    hashes = [[i.id, i.sha256] for i in ingredients]
    holdout = bench.images.dataset(bench.holdout).sha256
    path = bench.kept_path([method, hashes, holdout, options, strict], soup.__name__)

    def make() -> dict[str, Any]:
        return METHODS[method](bench.experiment.soups.pool(ingredients), **options, **strict).to_json()

    return Soup.from_json(kept(path, make))


def picked(soup: Soup, ingredients: Sequence[Ingredient]) -> list[Ingredient]:
    """Return those ingredients that are in the soup, in the order of `ingredients`."""
    return [i for i in ingredients if i.id in soup.ingredients]


def as_listed(soup: Soup, ingredients: Sequence[Ingredient]) -> list[Ingredient]:
    """Return those ingredients that are in the soup, in the order in which the soup lists them."""
    return sorted(picked(soup, ingredients), key=lambda i: soup.ingredients.index(i.id))


def renumbered(ingredients: Sequence[Ingredient]) -> list[Ingredient]:
    """Return the models with ids 000, 001, ..., since models of different pools may share an id."""
    return [Ingredient(f"{n:03d}", i.path, i.sha256, i.recipe) for n, i in enumerate(ingredients)]
