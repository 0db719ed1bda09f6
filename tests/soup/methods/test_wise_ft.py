"""WiSE-FT, worked out by hand."""

from dataclasses import replace

import pytest
from handmade import ingredient, margin_pool

from modelsoups.soup.coefficients import Soup
from modelsoups.soup.methods import METHODS

A, B = (4, 1, 1, -2), (-1, -0.5, 1, 3)  # margins


def test_wise_ft_by_hand() -> None:
    """alpha 0.75 towards 1/3 a + 2/3 b: 1/4 of the start, 1/4 of a, 1/2 of b."""
    soup = Soup("greedy", ("a", "b"), ("ha", "hb"), {"*": [1 / 3, 2 / 3]})
    start = ingredient("initialization")
    mixed = METHODS["wise_ft"](start, soup, alpha=0.75)
    assert mixed.ingredients == ("initialization", "a", "b")
    assert mixed.hashes == ("hash of initialization", "ha", "hb")
    assert mixed.coefficients["*"] == pytest.approx([0.25, 0.25, 0.5])
    pool = margin_pool(A, B)
    assert METHODS["wise_ft"](start, pool.ingredients[0], alpha=0.5).coefficients == {"*": [0.5, 0.5]}


def test_wise_ft_refuses() -> None:
    soup, pool = Soup("greedy", ("a",), ("ha",), {"*": [1.0]}), margin_pool(A, B)
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="alpha="):
            METHODS["wise_ft"](ingredient("start"), soup, alpha=alpha)
    with pytest.raises(ValueError, match="ensemble mixes logits"):
        METHODS["wise_ft"](ingredient("start"), METHODS["ensemble"](pool), alpha=0.5)
    other = replace(ingredient("a"), sha256="other")
    with pytest.raises(ValueError, match="a is already an ingredient of greedy, with other weights"):
        METHODS["wise_ft"](other, soup, alpha=0.5)


def test_wise_ft_towards_a_soup_of_the_initialization_adds_its_two_coefficients() -> None:
    """0.75 of (0.2 start + 0.8 a) and 0.25 of start."""
    start = ingredient("start")
    soup = Soup("greedy", ("a", "start"), ("ha", start.sha256), {"*": [0.8, 0.2]})
    found = METHODS["wise_ft"](start, soup, alpha=0.75)
    assert (found.ingredients, found.hashes) == (("start", "a"), (start.sha256, "ha"))
    assert found.coefficients["*"] == pytest.approx([0.4, 0.6])
