"""Searches: what is drawn, that it depends on (search, seed, index) alone, and what is refused."""

import copy
import hashlib
import math
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from scipy import stats

from modelsoups.recipes.recipe import Recipe
from modelsoups.recipes.search import DISTRIBUTIONS, draw, size, validate

PAPER: dict[str, Any] = {  # J.2.1's random search
    "kind": "random",
    "count": 72,
    "parameters": {
        "lr": {"log10_uniform": [-6, -4]},
        "weight_decay": {"log10_uniform": [-4, -0.2]},
        "label_smoothing": {"mixture": [{"p": 0.5, "constant": 0.0}, {"p": 0.5, "uniform": [0, 0.25]}]},
        "epochs": {"integer": [4, 16]},
        "mixup": {"mixture": [{"p": 0.5, "constant": 0.0}, {"p": 0.5, "uniform": [0, 0.9]}]},
        "aug": {
            "mixture": [{"p": 0.3333, "constant": "minimal"}, {"p": 0.6667, "randaugment": {"m": [0, 20], "n": [0, 2]}}]
        },
    },
}
GRID: dict[str, Any] = {
    "kind": "grid",
    "parameters": {"lr": [3e-5, 2e-5], "aug": ["minimal", "strong"], "seed": [0, 1]},
}
LIST: dict[str, Any] = {"kind": "list", "recipes": [{"lr": 1e-4, "aug": "medium"}, {"lr": 1e-5, "seed": 7}]}
FIXED = {"batch_size": 512, "warmup_steps": 500, "clip": 1.0}


# ---- purity ----


def test_a_draw_is_frozen() -> None:
    """A change would give finished sweeps other recipes under the same name. The learning rate and seed by hand."""
    expected = {
        "lr": 6.84684e-05,
        "weight_decay": 0.000113133,
        "label_smoothing": 0.0,
        "epochs": 7,
        "mixup": 0.494444,
        "aug": "rand-m7-n2",
        "seed": 8521603950178234405,
    }
    assert draw(PAPER, 7, 3) == expected
    bits = int.from_bytes(hashlib.sha256(b'[7, 3, "lr", ""]').digest()[:8], "big")
    assert float(f"{10 ** (-6 + 2 * bits / 2**64):.6g}") == expected["lr"]
    bits = int.from_bytes(hashlib.sha256(b'[7, 3, "seed", ""]').digest()[:8], "big")
    assert bits // 2 == expected["seed"]


def test_every_draw_is_a_recipe_and_repeats() -> None:
    rows = [draw(PAPER, 3, i) for i in range(72)]
    for row in rows:
        Recipe(**row, **FIXED)
    assert rows[::-1] == [draw(copy.deepcopy(PAPER), 3, i) for i in reversed(range(72))]
    assert len({row["seed"] for row in rows}) == 72
    assert all(0 <= row["seed"] < 2**63 for row in rows)
    assert rows != [draw(PAPER, 4, i) for i in range(72)]


def test_another_process_draws_the_same() -> None:
    """Python's own hash() is salted per process; ours must not depend on it."""
    code = f"from modelsoups.recipes.search import draw; print(draw({PAPER!r}, 1, 5))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert done.stdout.strip() == repr(draw(PAPER, 1, 5))


def environment() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "12345"}


def test_a_new_parameter_leaves_the_others_alone() -> None:
    more = copy.deepcopy(PAPER)
    more["parameters"] = {"clip": {"uniform": [0.5, 2]}, **dict(reversed(more["parameters"].items()))}
    for i in range(20):
        row = draw(more, 0, i)
        assert row.pop("clip")
        assert row == draw(PAPER, 0, i)


# ---- distributions ----


def column(spec: dict[str, Any], name: str, count: int = 3000) -> list[Any]:
    return [draw({"kind": "random", "count": 1, "parameters": {name: spec}}, 0, i)[name] for i in range(count)]


def test_continuous_distributions() -> None:
    """Kolmogorov-Smirnov at 3,000 draws; the seed is fixed, so this either holds or does not."""
    rates = [math.log10(x) for x in column({"log10_uniform": [-6, -4]}, "lr")]
    assert stats.kstest(rates, stats.uniform(-6, 2).cdf).pvalue > 0.01
    assert stats.kstest(column({"uniform": [0, 0.9]}, "mixup"), stats.uniform(0, 0.9).cdf).pvalue > 0.01


def test_discrete_distributions() -> None:
    """Chi-square over 3,000 draws: every value, both ends included, equally often."""
    epochs = Counter(column({"integer": [4, 16]}, "epochs"))
    assert sorted(epochs) == list(range(4, 17))
    assert stats.chisquare(list(epochs.values())).pvalue > 0.01
    choices = Counter(column({"choice": ["minimal", "medium", "strong"]}, "aug"))
    assert len(choices) == 3
    assert stats.chisquare(list(choices.values())).pvalue > 0.01
    randaug = Counter(column({"randaugment": {"m": [0, 2], "n": [0, 1]}}, "aug"))
    assert set(randaug) == {f"rand-m{m}-n{n}" for m in range(3) for n in range(2)}
    assert stats.chisquare(list(randaug.values())).pvalue > 0.01


def test_a_mixture_takes_each_part_with_its_probability() -> None:
    """A quarter of 3,000 is 750 with standard deviation 24; within the part, uniform."""
    values = column({"mixture": [{"p": 0.75, "constant": 0.0}, {"p": 0.25, "uniform": [0.1, 0.2]}]}, "label_smoothing")
    drawn = [v for v in values if v != 0.0]
    assert abs(len(drawn) - 750) < 75
    assert stats.kstest(drawn, stats.uniform(0.1, 0.1).cdf).pvalue > 0.01


def test_parameters_are_independent() -> None:
    rows = [draw(PAPER, 0, i) for i in range(1000)]
    lr, decay = [r["lr"] for r in rows], [r["weight_decay"] for r in rows]
    assert abs(stats.spearmanr(lr, decay).statistic) < 0.1


def test_strata_deal_one_value_to_each_part_in_every_block() -> None:
    """Twelve strata of 10^[-3.7, -2.5]: each block of twelve indices has one exponent in each tenth."""
    search = {"kind": "random", "count": 12, "parameters": {"lr": {"log10_uniform": [-3.7, -2.5], "strata": 12}}}
    orders = []
    for block in range(3):
        rates = [draw(search, 0, 12 * block + i)["lr"] for i in range(12)]
        parts = [int((math.log10(x) + 3.7) / 0.1) for x in rates]
        assert sorted(parts) == list(range(12))
        orders.append(parts)
    assert orders[0] != orders[1] != orders[2], "each block is shuffled again"


def test_values_have_six_digits_and_stay_in_their_range() -> None:
    for value in column({"uniform": [0.1234567, 0.12345671]}, "mixup", 50):
        assert 0.1234567 <= value <= 0.12345671
    assert all(value == float(f"{value:.6g}") for value in column({"log10_uniform": [-6, -4]}, "lr", 200))


# ---- grid and list ----


def test_grid_by_hand() -> None:
    """2 x 2 x 2; the last parameter varies fastest. Its own seed is kept."""
    assert size(GRID) == 8
    assert [draw(GRID, 5, i) for i in (0, 1, 2, 7)] == [
        {"lr": 3e-5, "aug": "minimal", "seed": 0},
        {"lr": 3e-5, "aug": "minimal", "seed": 1},
        {"lr": 3e-5, "aug": "strong", "seed": 0},
        {"lr": 2e-5, "aug": "strong", "seed": 1},
    ]
    without_seed = {"kind": "grid", "parameters": {"lr": [3e-5, 2e-5]}}
    assert draw(without_seed, 5, 0)["seed"] != draw(without_seed, 5, 1)["seed"]


def test_list_by_hand() -> None:
    assert size(LIST) == 2
    assert draw(LIST, 0, 1) == {"lr": 1e-5, "seed": 7}
    assert {k: v for k, v in draw(LIST, 0, 0).items() if k != "seed"} == {"lr": 1e-4, "aug": "medium"}
    assert draw(LIST, 0, 0)["seed"] != draw(LIST, 1, 0)["seed"]


@pytest.mark.parametrize(("search", "index"), [(PAPER, -1), (GRID, 8), (GRID, -1), (LIST, 2)])
def test_indices_out_of_range(search: dict[str, Any], index: int) -> None:
    with pytest.raises(ValueError, match=f"index {index} is out of range"):
        draw(search, 0, index)


def test_a_random_search_goes_on_beyond_its_count() -> None:
    """count is a default: sweep.count=100 takes more of the same search."""
    assert size(PAPER) == 72
    Recipe(**draw(PAPER, 0, 99), **FIXED)


# ---- what is refused ----


def random_search(name: str, spec: Any) -> dict[str, Any]:
    return {"kind": "random", "count": 3, "parameters": {name: spec}}


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (None, "kind=None: expected one of random, grid, list"),
        ({"kind": "bayes"}, "kind=bayes"),
        ({"kind": ["random"]}, "kind="),
        ({"kind": "random", "parameters": {}}, "have the keys kind, count, parameters; not kind, parameters"),
        ({"kind": "grid", "parameters": {"lr": [1e-5]}, "count": 3, 1: 2}, "not kind, parameters, count, 1"),
        ({"kind": "random", "count": 0, "parameters": {"lr": {"constant": 1.0}}}, "count=0"),
        ({"kind": "random", "count": True, "parameters": {"lr": {"constant": 1.0}}}, "count=True"),
        ({"kind": "random", "count": 1, "parameters": {}}, "parameters: expected a mapping"),
        ({"kind": "grid", "parameters": {"lr": 1e-5}}, "parameters.lr: expected a non-empty list of values"),
        ({"kind": "grid", "parameters": {"lr": []}}, "parameters.lr: expected a non-empty list of values"),
        ({"kind": "grid", "parameters": {"lr": ["3e-5"]}}, r"parameters.lr: YAML reads 3e-5 as text; .* 3\.0e-5"),
        ({"kind": "grid", "parameters": {"wd": [0.1]}}, "parameters.wd: no such hyperparameter; valid names: lr, wei"),
        ({"kind": "grid", "parameters": {"epochs": [4.5]}}, "parameters.epochs: expected an integer, not 4.5"),
        ({"kind": "list", "recipes": []}, "recipes: expected a non-empty list"),
        ({"kind": "list", "recipes": ["lr"]}, "recipes: entry 0 is 'lr'"),
        ({"kind": "list", "recipes": [{"lrr": 1.0}]}, "parameters.lrr: no such hyperparameter"),
        ({"kind": "list", "recipes": [{"lr": -1.0}]}, r"recipe.lr=-1.0: expected above 0"),
        (random_search("lr", 1e-5), "parameters.lr: expected a mapping with one distribution .*log10_uniform"),
        (
            random_search("lr", {"log_uniform": [-6, -4]}),
            "expected exactly one distribution of choice, .*, not log_uniform",
        ),
        (random_search("lr", {"constant": 1.0, "choice": [1.0]}), "one distribution of .*, not constant, choice"),
        (random_search("lr", {"strata": 3}), "one distribution of .*, not none"),
        (random_search("lr", {"log10_uniform": [-4, -6]}), r"expected \[low, high\] with low <= high, not \[-4, -6\]"),
        (random_search("lr", {"log10_uniform": [-4]}), r"expected \[low, high\]"),
        (random_search("lr", {"log10_uniform": ["a", "b"]}), r"expected \[low, high\]"),
        (random_search("lr", {"log10_uniform": [-4, float("nan")]}), r"expected \[low, high\]"),
        (random_search("lr", {"log10_uniform": [-4, 999]}), "out of range"),
        (random_search("lr", {"log10_uniform": [-4, 2]}), r"parameters.lr: recipe.lr=100.0: expected above 0"),
        (random_search("lr", {"uniform": [0, 1]}), "recipe.lr=0: expected above 0"),
        (random_search("epochs", {"uniform": [4, 16]}), "parameters.epochs: .* is an integer; use integer"),
        (random_search("epochs", {"integer": [4, 16.5]}), "as integers"),
        (random_search("epochs", {"integer": [0, 16]}), "recipe.epochs=0: expected at least 1"),
        (random_search("aug", {"constant": "weird"}), "recipe.aug=weird"),
        (random_search("aug", {"choice": "minimal"}), "expected a non-empty list of values"),
        (random_search("aug", {"randaugment": {"m": [0, 20]}}), "randaugment expects"),
        (random_search("aug", {"randaugment": {"m": [0, 20], "n": [-1, 2]}}), "randaugment n="),
        (
            random_search("aug", {"randaugment": {"m": [0, 2.5], "n": [0, 2]}}),
            r"aug: expected .* as integers .*, not \[0, 2\.5\]",
        ),
        (random_search("lr", {"randaugment": {"m": [0, 20], "n": [0, 2]}}), "parameters.lr: recipe.lr=rand-m0-n0"),
        (random_search("mixup", {"mixture": []}), "mixture expects a non-empty list"),
        (random_search("mixup", {"mixture": [{"constant": 0.0}]}), "needs a probability p"),
        (random_search("mixup", {"mixture": [{"p": 1.5, "constant": 0.0}]}), "needs a probability p"),
        (random_search("mixup", {"mixture": [{"p": 0.5, "constant": 0.0}, {"p": 0.3, "constant": 0.1}]}), "sum to 0.8"),
        (
            random_search("mixup", {"mixture": [{"p": 1.0, "constan": 0.0}]}),
            "parameters.mixup: expected exactly .*, not constan",
        ),
        (
            random_search("mixup", {"mixture": [{"p": 1.0, "uniform": [0, 1], "strata": 3}]}),
            "one distribution of .*, not uniform, strata",
        ),
        (
            random_search("mixup", {"constant": 0.5, "strata": 3}),
            "strata=3: expected .* and only with uniform",
        ),
        (random_search("mixup", {"uniform": [0, 1], "strata": 0}), "strata=0"),
        (
            random_search("aug,mixup", [["minimal", 0.0]]),
            r"parameters.aug,mixup: expected choice: \[lists of 2 values\]",
        ),
        (random_search("aug,mixup", {"choice": [["minimal"]]}), r"expected choice: \[lists of 2 values\]"),
        (random_search("aug,mixup", {"choice": [["minimal", -1.0]]}), "parameters.mixup: recipe.mixup=-1.0"),
        ({"kind": "grid", "parameters": {"aug,lr": [["minimal"]]}}, r"aug,lr: expected \[lists of 2 values\]"),
        ({"kind": "grid", "parameters": {"aug,lr": [["minimal", 1.0]], "lr": [1.0]}}, "lr is in two entries"),
        (random_search("mixup", {"uniform": [0, 1], "p": 0.5}), "one distribution of .*, not uniform, p"),
        ({"kind": "grid", "parameters": {7: [0.0]}}, "parameters: 7 is not the name of a hyperparameter"),
        ({"kind": "list", "recipes": [{"lr": 1e-5}, {None: 1}]}, "recipes: entry 1: None is not the name"),
    ],
)
def test_bad_searches_are_named_in_one_line(search: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        validate(search)
    assert "\n" not in str(error.value)


def test_hyperparameters_that_vary_together_are_drawn_together() -> None:
    pairs = [["minimal", 0.0], ["inception", 0.2], ["rand-m15-n2-mmax30", 0.0]]
    search = random_search("aug,mixup", {"choice": pairs})
    drawn = [draw(search, 0, n) for n in range(30)]
    assert {(r["aug"], r["mixup"]) for r in drawn} == set(map(tuple, pairs))
    grid = {"kind": "grid", "parameters": {"aug,mixup": pairs, "lr": [1.0, 2.0]}}
    assert size(grid) == 6
    assert [(r["aug"], r["mixup"], r["lr"]) for r in (draw(grid, 0, n) for n in (0, 1, 2))] == [
        ("minimal", 0.0, 1.0),
        ("minimal", 0.0, 2.0),
        ("inception", 0.2, 1.0),
    ]


def test_the_shipped_kinds_are_valid_and_probabilities_may_be_rounded() -> None:
    for search in (PAPER, GRID, LIST):
        validate(search)
    assert set(DISTRIBUTIONS) == {
        "choice",
        "constant",
        "uniform",
        "log10_uniform",
        "integer",
        "mixture",
        "randaugment",
    }
