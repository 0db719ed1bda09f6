"""An Experiment holds what a run has open, and nothing of another run."""

import pickle

import pytest
import torch
from pico import arguments
from safetensors.torch import load_file, save_file

from modelsoups.config.compose import load
from modelsoups.config.schema import HeadsConfig, SoupConfig
from modelsoups.experiment.experiment import Experiment
from modelsoups.experiment.ingredients import Ingredients
from modelsoups.models.classifier import state_of
from modelsoups.soup.coefficients import Ingredient
from modelsoups.stages import sweep


def ingredients(ids):
    return [Ingredient(name, "", name, None) for name in ids]


def test_soups_are_made_of_one_average_and_perhaps_of_the_initial_model():
    ids = ["000-ema-0.9", "000-ema-0.99", "001-ema-0.9", "001-ema-0.99"]

    def pool(**options):
        found = Ingredients(None, None, HeadsConfig(), SoupConfig(**options), None)
        found.initial = lambda: {"initialization": Ingredient("initialization", "", "i", None)}
        return [i.id for i in found.pool(ingredients(ids))]

    assert pool() == ids
    assert pool(average="ema-0.99") == ["000-ema-0.99", "001-ema-0.99"]
    assert pool(average="ema-0.9", initialization=True) == ["000-ema-0.9", "001-ema-0.9", "initialization"]
    says = r"^soup\.average=ema-0\.5: no ingredient has this average, but ema-0\.9, ema-0\.99; see recipe\.ema$"
    with pytest.raises(ValueError, match=says):
        pool(average="ema-0.5")


@pytest.fixture
def two(data, tmp_path):
    """Two runs on the same sets, one with other recipes and unscaled features."""
    args = arguments(tmp_path, data)
    one = Experiment(load([*args, f"runs={tmp_path / 'one'}"]))
    other = Experiment(load([*args, f"runs={tmp_path / 'other'}", "sweep.seed=1", "model.normalize_features=false"]))
    return one, other


def test_two_experiments_in_one_process_do_not_see_each_other(two):
    one, other = two
    sweep.run(one)
    with pytest.raises(ValueError, match=r"draw\.jsonl is missing"):
        other.draw.recipes()
    sweep.run(other)
    assert one.draw.recipes() != other.draw.recipes()
    assert one.sets["test"] is one.sets["test"]
    assert one.sets["test"] is not other.sets["test"]
    first, second = one.classifier(80), other.classifier(80)
    assert first is one.classifier(80)
    assert (first.normalize, second.normalize) == (True, False)
    with torch.no_grad():
        second.head.bias.fill_(7.0)
    assert not bool((first.head.bias == 7.0).any())


def test_logits_of_one_are_not_read_by_the_other(two):
    one, other = two
    state = state_of(one.classifier(80))
    here = one.logits.of("v2", "a" * 64, state)
    assert torch.equal(one.logits.of("v2", "a" * 64).logits_NC, here.logits_NC)
    with pytest.raises(ValueError, match="is missing; run `modelsoups evaluate`"):
        other.logits.of("v2", "a" * 64)
    assert not torch.equal(other.logits.of("v2", "a" * 64, state).logits_NC, here.logits_NC)


def test_a_worker_gets_the_configuration_and_opens_the_rest_itself(two):
    one, _ = two
    kept = one.sets["test"]
    again = pickle.loads(pickle.dumps(one))
    assert again.config == one.config
    assert again.sets["test"] is not kept
    assert len(pickle.dumps(one)) < 20_000


def test_logits_that_changed_are_named(two):
    one, _ = two
    kept = one.logits.of("v2", "a" * 64, state_of(one.classifier(80)))
    path = one.logits.path("v2", "a" * 64)
    content = load_file(path)
    assert torch.equal(content["logits"], kept.logits_NC)
    content["logits"][3, 4] += 1
    save_file(content, path)
    with pytest.raises(ValueError, match="has changed since it was written; move it away and run the stage again"):
        one.logits.of("v2", "a" * 64)
    save_file({"logits": content["logits"]}, path)  # of an earlier version, without a digest
    assert torch.equal(one.logits.of("v2", "a" * 64).logits_NC, content["logits"])
