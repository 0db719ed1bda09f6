"""The bold rule and the oracle row of Table 4, worked out by hand."""

import numpy as np
import pytest

from modelsoups.stats.bold_rule import bold, oracle


def test_oracle_by_hand() -> None:
    """x is best on the first set, y on the second and third and on their mean: (0.4 + 0.8) / 2 against 0.5."""
    rows = {"x": {"test": 0.9, "v2": 0.3, "r": 0.7}, "y": {"test": 0.8, "v2": 0.4, "r": 0.8}}
    assert oracle(rows, ["v2", "r"]) == {
        "test": ("x", 0.9), "v2": ("y", 0.4), "r": ("y", 0.8), "mean": ("y", pytest.approx(0.6)),
    }  # fmt: skip
    assert "mean" not in oracle(rows, [])
    with pytest.raises(ValueError, match="no individual models"):
        oracle({}, [])


def correct(right: int, n: int, start: int = 0) -> np.ndarray:
    answers = np.zeros(n, bool)
    answers[start : start + right] = True
    return answers


def test_bold_are_those_not_significantly_below_the_best() -> None:
    """Best 60 of 100. Four fewer of the same images: exact McNemar 2 / 2^4 = 0.125, bold; six: 2 / 2^6 = 0.03, not."""
    rows = {"best": [correct(60, 100)], "near": [correct(56, 100)], "far": [correct(54, 100)]}
    assert bold(rows) == {"best", "near"}
    assert bold({}) == set()


def test_bold_of_a_mean_is_by_permutation() -> None:
    rows = {
        "best": [correct(60, 100), correct(60, 100)],
        "near": [correct(58, 100), correct(58, 100)],
        "far": [correct(50, 100), correct(50, 100)],
    }
    assert bold(rows) == {"best", "near"}
