"""IconNet as a library of `prepare`: names, inputs and facts of its sets, and their shards."""

from collections import Counter
from dataclasses import replace

import pytest

from modelsoups.config.data import DataConfig
from modelsoups.data.shards import ShardSet
from modelsoups.disk import manifests
from modelsoups.miniature import images, library, sets

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


def test_the_parts_share_no_class_and_have_every_class_between_them(tmp_path):
    parts = [replace(DATA, shifts=["v2"], extra=[], part=[i, 7], dir=str(tmp_path)) for i in range(7)]
    classes = [library.facts(part, "paper", "v2")["classes"] for part in parts]
    assert sorted(name for names in classes for name in names) == sorted(sets.CLASSES)
    assert len({library.inputs(part, "paper", "v2")["part"][0] for part in parts}) == 7
    assert library.names(parts[0]) == ["train", "holdout", "test", "v2"]


def test_a_part_shows_its_own_classes_with_labels_from_zero():
    found = list(images.render_part("v2", 0, [3, 10]))
    assert [key for key, _, _ in found[:2]] == ["v2-00000", "v2-00001"]
    assert Counter(label for _, _, label in found) == {0: 45, 1: 45}
    assert {image_HWC.shape for _, image_HWC, _ in found} == {(32, 32, 3)}


@pytest.mark.parametrize("part", [[7, 7], [-1, 7], [0], [0, 41]])
def test_a_wrong_part_is_refused(part):
    with pytest.raises(ValueError, match=r"data\.part=.*: expected \[i,n\] with 0 <= i < n <= 40"):
        library.names(replace(DATA, shifts=[], extra=[], part=part))
    with pytest.raises(ValueError, match=r"data\.part=\[0, 7\]: data set r has other classes"):
        library.names(replace(DATA, part=[0, 7]))
