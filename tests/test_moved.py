"""Imports by the names of 0.1 end in one line with the new name."""

import importlib

import pytest


@pytest.mark.parametrize(
    ("old", "new"),
    [("core.types", "recipes.recipe"), ("core.methods.pool", "soup.pool"), ("runs", "disk"), ("reporting", "report")],
)
def test_an_old_name_is_refused_with_the_new_one(old, new):
    with pytest.raises(ModuleNotFoundError, match=new) as error:
        importlib.import_module(f"modelsoups.{old}")
    assert "\n" not in str(error.value)


def test_a_name_that_never_was_is_refused_as_always():
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'modelsoups\.nothing'"):
        importlib.import_module("modelsoups.nothing")
