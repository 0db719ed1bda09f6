"""What `print(soup)` says."""

import pytest

from modelsoups.soup.coefficients import Soup

HASHES = ("x", "y")


@pytest.mark.parametrize(
    ("coefficients", "space", "said"),
    [
        ({"*": [0.5, 0.5]}, "weights", "greedy soup of 2 models: a.pt, b.pt"),
        ({"*": [0.5, 0.5]}, "logits", "greedy ensemble of 2 models: a.pt, b.pt"),
        ({"*": [1.25, -0.25]}, "weights", "greedy soup of 2 models: 1.25 a.pt, -0.25 b.pt"),
        ({"0": [1, 0], "*": [0.25, 0.75]}, "weights", "greedy soup of 2 models: a.pt, b.pt"),  # by layer
    ],
)
def test_a_soup_is_printed_in_words(coefficients, space, said):
    assert str(Soup("greedy", ("a.pt", "b.pt"), HASHES, coefficients, space)) == said
