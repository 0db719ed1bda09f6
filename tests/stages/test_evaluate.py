"""A data set with other classes than the models' heads is refused before any image is read."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from modelsoups.soup.coefficients import Ingredient
from modelsoups.stages import evaluate


class Sets:
    """Stands for the sets of a run: one set of 182 classes."""

    def __getitem__(self, name):
        return SimpleNamespace(classes=["animal"] * 182)

    def folder(self, name):
        return Path("data/iwildcam") / name


def test_a_set_with_other_classes_than_the_head_is_named():
    experiment, model = SimpleNamespace(sets=Sets()), Ingredient("000", "runs/x/model.safetensors", "0" * 64, None)
    evaluate.check_classes(experiment, "test", model, {"head.weight": torch.zeros(182, 4)})
    evaluate.check_classes(experiment, "test", model, {})  # a model without a head
    said = r"^data/iwildcam/test has 182 classes, but the head of runs/x/model.safetensors has 62; evaluate on a"
    with pytest.raises(ValueError, match=said):
        evaluate.check_classes(experiment, "test", model, {"head.weight": torch.zeros(62, 4)})
