"""The length of training in epochs or steps, later hyperparameters, and the bad values of a recipe."""

import json

import pytest
import torch
from pico import BASE

from modelsoups.config.compose import load
from modelsoups.data.loader import Share, index_batches
from modelsoups.recipes.recipe import Recipe
from modelsoups.tasks.text import batches_by_length

STEPS = {**BASE, "epochs": None, "batch_size": 4}


def batches(recipe, first=0):
    return list(index_batches(22, recipe, first))  # five batches an epoch


def test_steps_end_within_an_epoch_and_give_the_batches_of_epochs():
    whole = batches(Recipe(**{**STEPS, "epochs": 3}))
    for steps in (1, 5, 7, 13):
        recipe = Recipe(**STEPS, steps=steps)
        assert batches(recipe) == whole[:steps]
        assert batches(recipe, first=min(steps, 6)) == whole[min(steps, 6) : steps]
        assert (recipe.total_steps(22), recipe.begun_epochs(22)) == (steps, -(-steps // 5))
    assert batches(Recipe(**STEPS, steps=2), first=2) == []


def test_texts_in_steps_are_those_in_epochs():
    lengths_N = torch.arange(22) % 7
    whole = list(batches_by_length(lengths_N, Recipe(**{**STEPS, "epochs": 2}), 0, Share()))
    found = list(batches_by_length(lengths_N, Recipe(**STEPS, steps=7), 3, Share()))
    assert [index_B.tolist() for index_B in found] == [index_B.tolist() for index_B in whole[3:7]]


def test_files_hold_the_later_hyperparameters_only_where_they_are_not_the_default():
    earlier = Recipe(**BASE).to_json()
    assert list(earlier) == list(Recipe.names())[: Recipe.names().index("teachers") + 1]
    written = json.loads(json.dumps(Recipe(**STEPS, steps=7, crop_ratio=[0.95, 1.05]).to_json()))
    assert written.keys() - earlier.keys() == {"steps", "crop_ratio"}
    assert Recipe(**written) == Recipe(**STEPS, steps=7, crop_ratio=(0.95, 1.05))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 10}, r"recipe\.epochs=2 and recipe\.steps=10 are both given; set recipe\.epochs=null or .*=null$"),
        ({"epochs": None}, r"recipe\.epochs=null and recipe\.steps=null: training has no length; set one of the two$"),
        ({"epochs": None, "steps": 0}, r"recipe\.steps=0: expected at least 1"),
        ({"crop_ratio": [1.05, 0.95]}, r"recipe\.crop_ratio=.*: expected \[smallest,largest\], two numbers above 0"),
        ({"crop_ratio": [0.9]}, r"recipe\.crop_ratio=.*: expected \[smallest,largest\]"),
        ({"select": "first"}, r"recipe\.select=first: expected one of last, best$"),
        ({"image_size": 0}, r"recipe\.image_size=0: expected at least 1"),
    ],
)
def test_values_that_a_length_a_crop_or_a_selection_cannot_have(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**{**BASE, **change})


def test_the_command_line_names_both_lengths_and_an_evaluation_that_is_missing():
    with pytest.raises(ValueError, match=r"^recipe\.epochs=3 and recipe\.steps=10 are both given"):
        load(["recipe.epochs=3", "recipe.steps=10"])
    with pytest.raises(ValueError, match=r"^recipe\.select=best needs evaluations .*; set finetune\.evaluate_every"):
        load(["recipe.select=best"])
    assert load(["recipe.epochs=null", "recipe.steps=10"]).recipe["steps"] == 10
