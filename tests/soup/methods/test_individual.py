"""Best, second best, uniform and ensemble, by hand."""

from handmade import margin_pool

from modelsoups.soup.methods import METHODS

A, B, C, D = (4, 1, 1, -2), (-1, -0.5, 1, 3), (-9, -9, 1, -9), (1, -0.1, -0.1, -0.1)  # margins


def test_best_and_second_best() -> None:
    pool = margin_pool(C, A, B)
    assert METHODS["best"](pool).ingredients == ("b",)
    assert METHODS["second_best"](pool).ingredients == ("c",)
    assert METHODS["best"](pool).coefficients == {"*": [1.0]}
    assert METHODS["best"](pool).hashes == ("hash of b",)


def test_of_equal_accuracies_the_later_comes_first() -> None:
    """Two right each: ascending (stable) a, b, c; reversed c, b, a, as in the authors' code."""
    pool = margin_pool((1, 1, -1), (1, -1, 1), (-1, 1, 1))
    assert pool.by_score == (2, 1, 0)
    assert METHODS["best"](pool).ingredients == ("c",)
    assert METHODS["second_best"](pool).ingredients == ("b",)


def test_uniform_and_ensemble() -> None:
    pool = margin_pool(A, B, C, D)
    for method, space in (("uniform", "weights"), ("ensemble", "logits")):
        soup = METHODS[method](pool)
        assert (soup.method, soup.space, soup.ingredients) == (method, space, ("a", "b", "c", "d"))
        assert soup.coefficients == {"*": [0.25] * 4}
