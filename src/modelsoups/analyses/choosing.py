"""Soups that are chosen on the hold-out, for analyses of any pool."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from modelsoups.analyses.bench import Bench, kept
from modelsoups.analyses.members import Unavailable
from modelsoups.experiment.sets import evaluated
from modelsoups.soup import methods
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.soup.methods import METHODS, Pool


def need_holdout(bench: Bench) -> None:
    """Raise Unavailable where nothing can be chosen."""
    if bench.holdout not in evaluated(bench.cfg):
        raise Unavailable(f"it chooses on the hold-out {bench.holdout}, which is not prepared")


def holdout_pool(bench: Bench, ingredients: Sequence[Ingredient]) -> Pool:
    """These models and their logits on the hold-out, which is what a method chooses from."""
    logits = [bench.logits(i, bench.holdout) for i in ingredients]

    def state(index: int) -> dict[str, Tensor]:
        return bench.weights(ingredients[index])

    return Pool(
        ingredients=tuple(ingredients),
        logits=tuple(x.logits_NC for x in logits),
        labels_N=logits[0].labels_N,
        state=state,
        evaluate=lambda weights: bench.images.forward_all(bench.holdout, weights),
    )


def choose(bench: Bench, ingredients: Sequence[Ingredient], method: str, **options: Any) -> Soup:
    """The soup that a method chooses of these models, kept in a file."""
    strict = {"strict": bench.strict} if method.startswith("greedy") else {}
    hashes = [[i.id, i.sha256] for i in ingredients]
    holdout = bench.images.dataset(bench.holdout).sha256
    path = bench.kept_path([method, hashes, holdout, options, strict], methods.__name__)

    def make() -> dict[str, Any]:
        return METHODS[method](holdout_pool(bench, ingredients), **options, **strict).to_json()

    return Soup.from_json(kept(path, make))


def picked(soup: Soup, ingredients: Sequence[Ingredient]) -> list[Ingredient]:
    """The ingredients of a soup, in the order of the sequence."""
    return [i for i in ingredients if i.id in soup.ingredients]


def as_listed(soup: Soup, ingredients: Sequence[Ingredient]) -> list[Ingredient]:
    """The ingredients of a soup, in the soup's own order."""
    return sorted(picked(soup, ingredients), key=lambda i: soup.ingredients.index(i.id))


def renumbered(ingredients: Sequence[Ingredient]) -> list[Ingredient]:
    """The models with ids by position, which are unique where models come from several pools."""
    return [Ingredient(f"{n:03d}", i.path, i.sha256, i.recipe) for n, i in enumerate(ingredients)]
