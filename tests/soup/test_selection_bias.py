"""Selection bias, oracle row and bold rule, worked out by hand."""

import functools

import numpy as np
import torch

from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.soup.methods import METHODS
from modelsoups.soup.pool import Pool
from modelsoups.soup.selection_bias import halves, part_of, selection_bias
from modelsoups.stats import scores


def noise_pool(models: int, images: int, seed: int = 0) -> Pool:
    """Models that guess between two classes: whatever one seems to gain by being chosen is not there."""
    generator = torch.Generator().manual_seed(seed)
    logits = tuple(torch.randn(images, 2, generator=generator) for _ in range(models))
    labels = torch.randint(2, (images,), generator=generator)
    ingredients = tuple(Ingredient(f"{i:03d}", "", f"{i:064d}", None) for i in range(models))
    return Pool(ingredients, logits, labels, lambda i: {"logits": logits[i]}, lambda state: state["logits"])


def logits_of(pool: Pool, soup: Soup) -> torch.Tensor:
    place = {ingredient.id: i for i, ingredient in enumerate(pool.ingredients)}
    return scores.ensemble([pool.logits[place[name]] for name in soup.ingredients], soup.coefficients["*"])


def test_halves_are_two_halves() -> None:
    one, two = halves(7, 3)
    assert (len(one), len(two)) == (3, 4)
    assert sorted([*one.tolist(), *two.tolist()]) == list(range(7))
    assert torch.equal(one, halves(7, 3)[0])


def test_a_part_of_the_pool_sees_its_images_alone() -> None:
    pool = noise_pool(3, 10)
    part = part_of(pool, torch.tensor([1, 4]))
    assert torch.equal(part.logits[2], pool.logits[2][[1, 4]])
    assert torch.equal(part.evaluate(part.state(0)), pool.logits[0][[1, 4]])
    assert len(part.labels_N) == 2


def test_among_guesses_all_of_the_gain_is_bias() -> None:
    """Greedy over ten guessing models gains on the images that chose it, and on the others nothing."""
    found = []
    for seed in range(30):
        pool = noise_pool(10, 200, seed)
        found.append(selection_bias(pool, METHODS["greedy"], functools.partial(logits_of, pool), seed))
    apparent, honest = (np.mean([getattr(bias, name) for bias in found]) for name in ("apparent", "honest"))
    assert apparent > 0.02
    assert abs(honest) < 0.01
    assert any(bias.honest_N.any() for bias in found), "the halves that did not choose are evaluated"
    assert found[0].optimism == found[0].apparent - found[0].honest


def test_choosing_the_best_individual_gains_nothing_over_it() -> None:
    pool = noise_pool(4, 100)
    bias = selection_bias(pool, METHODS["best"], lambda soup: logits_of(pool, soup))
    assert (bias.apparent, bias.honest) == (0, 0)
    assert bias.apparent_N.shape == bias.honest_N.shape == (100,)
    assert not bias.apparent_N.any()


def test_a_pool_of_ones_own_parts_gives_the_same_bias() -> None:
    pool = noise_pool(10, 201)
    seen: list[int] = []

    def half(whole: Pool, index_n: torch.Tensor) -> Pool:
        seen.append(len(index_n))
        return part_of(whole, index_n)

    own = selection_bias(pool, METHODS["greedy"], functools.partial(logits_of, pool), 3, half)
    usual = selection_bias(pool, METHODS["greedy"], functools.partial(logits_of, pool), 3)
    assert seen == [len(pool.labels_N) // 2, len(pool.labels_N) - len(pool.labels_N) // 2]
    np.testing.assert_array_equal(own.honest_N, usual.honest_N)
