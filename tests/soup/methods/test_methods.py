"""The registry of methods: names, methods of one's own, options."""

import inspect
import json
from pathlib import Path

import pytest
from handmade import margin_pool

from modelsoups.config.soup_options import options_of
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.methods import METHODS, method_of

empty = inspect.Parameter.empty
A, B, C, D = (4, 1, 1, -2), (-1, -0.5, 1, 3), (-9, -9, 1, -9), (1, -0.1, -0.1, -0.1)  # margins


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"wise_ft"}))
def test_every_method_gives_a_soup_that_survives_json(method: str) -> None:
    soup = METHODS[method](margin_pool(A, B, C, D))
    assert soup.method == method
    assert Soup.from_json(json.loads(json.dumps(soup.to_json()))) == soup
    for row in soup.coefficients.values():
        assert sum(row) == pytest.approx(1.0) or method == "learned_free"


@pytest.mark.parametrize("method", METHODS)
def test_every_option_is_found_in_the_source_and_has_a_sentence(method: str) -> None:
    """`options_of` reads the source; what Python itself knows of the function is the same."""
    function = METHODS[method]
    found = options_of(f"{function.__module__.removeprefix('modelsoups.soup.')}.{function.__name__}")
    known = {n: p.default for n, p in inspect.signature(function).parameters.items() if p.kind == p.KEYWORD_ONLY}
    assert {option.name: option.default for option in found} == known
    assert all(len(option.sentence) > 5 for option in found)
    assert all(isinstance(option.default, option.kind) for option in found if option.default not in (None, empty))


def test_options_have_names_defaults_kinds_and_sentences() -> None:
    strict, max_picks = options_of("methods.greedy.greedy_replacement")
    assert (strict.name, strict.default, strict.kind) == ("strict", False, bool)
    assert "does not change the score" in strict.sentence
    assert (max_picks.name, max_picks.default, max_picks.kind) == ("max_picks", None, int)
    assert options_of("choosing.learned")[0].choices == ("all", "layer", "tensor", "free")
    assert [option.default for option in options_of("from_initialization.lines")] == [empty, empty]


OWN = """
def last(pool):
    return pool.soup("last", [len(pool) - 1])

number = 3
"""


def test_a_method_of_ones_own_is_named_by_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a module of the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("my_soup_methods.py").write_text(OWN)
    assert method_of("my_soup_methods:last")(margin_pool(A, B)).ingredients == ("b",)
    assert method_of("greedy") is METHODS["greedy"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("greeedy", "no soup method greeedy; expected module:function or one of best, second_best"),
        (":last", ":last: expected module:function"),
        ("my_other_methods:none", "my_other_methods:none cannot be imported: module"),
        ("my_other_methods:number", "my_other_methods:number is of type int; expected a function"),
        ("no_such_module:f", "no_such_module:f cannot be imported: No module named"),
        ("my_broken_methods:f", "my_broken_methods:f cannot be imported: invalid syntax"),
    ],
)
def test_what_is_no_method_is_refused_in_one_line(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_other_methods.py").write_text(OWN)
    Path("my_broken_methods.py").write_text("def f(:")
    with pytest.raises(ValueError, match=message) as error:
        method_of(name)
    assert "\n" not in str(error.value)
