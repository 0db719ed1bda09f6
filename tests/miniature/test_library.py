"""IconNet as a library of `prepare`: names, inputs and facts of its sets, and their shards."""

from dataclasses import replace

import pytest

from modelsoups.config.data import DataConfig
from modelsoups.data.shards import ShardSet
from modelsoups.disk import manifests
from modelsoups.miniature import library, sets

DATA = DataConfig("iconnet", "iconnet", "data", seed=3, shifts=["v2", "r"], extra=["a"])


def test_the_sets_of_an_experiment_come_in_order_and_an_unknown_one_is_refused():
    assert library.names(DATA) == ["train", "holdout", "test", "v2", "r", "a"]
    with pytest.raises(ValueError, match=r"data set real: IconNet has only train, holdout, .*, a$"):
        library.names(replace(DATA, extra=["real"]))


def test_a_set_is_made_again_if_its_seed_changes():
    inputs = library.inputs(DATA, "paper", "v2")
    assert inputs == {"library": "iconnet", "set": "v2", "seed": 3, "version": sets.VERSION}
    assert library.inputs(replace(DATA, seed=4), "paper", "v2") != inputs
    assert sets.VERSION == "f0def6c7740cd444"


def test_a_set_is_written_as_shards_that_hold_its_images(tmp_path):
    data = replace(DATA, dir=str(tmp_path))
    assert library.make(data, "paper", ["v2"], 1) == {"v2": sets.SETS["v2"].count}
    manifest = manifests.complete(tmp_path / "v2", library.inputs(data, "paper", "v2"))
    assert manifest is not None
    assert (manifest["name"], manifest["title"], manifest["role"]) == ("v2", "IconNetV2", "shift")
    made = ShardSet(tmp_path / "v2")
    assert len(made) == sets.SETS["v2"].count
    assert made.classes == sets.CLASSES
