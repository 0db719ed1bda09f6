"""Every recipe of the paper trains, resumes to the bit and gives ingredients that the soups take."""

import json
import shutil
from dataclasses import asdict

import pytest
import torch
from pico import arguments
from safetensors.torch import load_file

from modelsoups import finetune, heads, pool, sweep
from modelsoups.config import load
from modelsoups.core.types import Recipe
from modelsoups.data.loader import Augmented
from modelsoups.trainer import Trainer

BASE = {"lr": 5e-4, "weight_decay": 0.05, "epochs": 2, "label_smoothing": 0.1, "mixup": 0.0, "aug": "minimal",
        "seed": 3, "batch_size": 64, "warmup_steps": 1, "clip": 1.0, "min_crop": 0.9, "flip": 0.0}  # fmt: skip
RECIPES = {
    "adam, restarts": {"optimizer": "adam", "schedule": "cosine_restarts"},
    "rmsprop, linear": {"optimizer": "rmsprop", "schedule": "linear", "lr": 1e-4},
    "sgd, constant, frozen head": {"optimizer": "sgd", "schedule": "constant", "trained": "encoder", "lr": 0.05},
    "adafactor, binary, cutmix": {"optimizer": "adafactor", "loss": "binary", "cutmix": 0.4},
    "sam, mixup or cutmix, stochastic": {"sam": 0.05, "mixup": 0.5, "cutmix": 0.5, "aug": "stochastic"},
    "averages, fix": {"ema": (0.5, 0.9), "swa": (0.0, 0.7), "aug": "fix"},
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory, data):
    """A run folder with its initial models; its draw is the six recipes."""
    home = tmp_path_factory.mktemp("recipes")
    lines = [json.dumps({**asdict(Recipe(**BASE)), **changes}) for changes in RECIPES.values()]
    (home / "recipes.jsonl").write_text("\n".join(lines) + "\n")
    cfg = configured(home, data, home / "run")
    heads.run(cfg)
    sweep.run(cfg)
    return home


def configured(home, data, run):
    keys = [f"recipe.{key}=???" for key in Recipe.names()]  # what is left open comes from the search
    options = [*keys, f"sweep.search={home / 'recipes.jsonl'}", f"runs={run}", "finetune.parallel=1"]
    return load([*arguments(home, data), *options])


@pytest.fixture
def cfg(begun, data, tmp_path):
    shutil.copytree(begun / "run", tmp_path / "run")
    return configured(begun, data, tmp_path / "run")


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Stop(Exception):
    pass


@pytest.mark.parametrize("index", range(len(RECIPES)), ids=RECIPES)
def test_each_recipe_trains_and_resumes_to_the_bit(cfg, monkeypatch, index):
    recipes = sweep.load_draw(cfg)
    assert finetune._finetune(cfg, recipes, index) is None
    folder = cfg.run.ingredient(index)
    straight, rows = {p.name: p.read_bytes() for p in folder.glob("*.safetensors")}, losses(folder)
    assert len(rows) == 10  # 5 steps an epoch
    assert all(loss > 0 for loss in rows)
    shutil.rmtree(folder)
    update = Trainer._update

    def broken(self, batch):
        if self.step == 7:
            raise Stop
        return update(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", broken)
        with pytest.raises(Stop):
            finetune._finetune(cfg, recipes, index)
    assert finetune._finetune(cfg, recipes, index) is None
    assert {p.name: p.read_bytes() for p in folder.glob("*.safetensors")} == straight
    assert losses(folder) == rows


def test_averages_are_ingredients_of_their_own(cfg):
    index = list(RECIPES).index("averages, fix")
    recipes = sweep.load_draw(cfg)
    finetune._finetune(cfg, recipes, index)
    ingredients = {i.id: i for i in pool.load_pool(load_minimum(cfg)).ingredients}
    name = f"{index:03d}"
    assert list(ingredients) == [name, *(f"{name}-{a}" for a in ("ema-0.5", "ema-0.9", "swa-0", "swa-0.7"))]
    assert len({i.sha256 for i in ingredients.values()}) == 4  # SWA 70% of two epochs is the last one: the model itself
    assert ingredients[f"{name}-swa-0.7"].sha256 == ingredients[name].sha256
    last = load_file(cfg.run.ingredient(index) / "model.safetensors")
    first = load_file(cfg.run.ingredient(index) / "swa-0.safetensors")
    assert not torch.equal(last["head.weight"], first["head.weight"])
    for ingredient in ingredients.values():
        assert pool.load_weights(ingredient).keys() == last.keys()


def load_minimum(cfg):
    cfg.soup.minimum = 1
    return cfg


def test_a_frozen_head_does_not_move(cfg):
    index = list(RECIPES).index("sgd, constant, frozen head")
    finetune._finetune(cfg, sweep.load_draw(cfg), index)
    after = load_file(cfg.run.ingredient(index) / "model.safetensors")
    before = load_file(cfg.run.head("lp") / "model.safetensors")
    assert torch.equal(after["head.weight"], before["head.weight"])
    assert not torch.equal(after["encoder.conv1.weight"], before["encoder.conv1.weight"])
    other = sweep.load_draw(cfg)
    finetune._finetune(cfg, other, 0)  # the next run of the process trains its head again
    assert not torch.equal(load_file(cfg.run.ingredient(0) / "model.safetensors")["head.weight"], before["head.weight"])


def test_fix_augmentation_is_strong_until_the_last_epoch_and_stochastic_takes_all_three(tmp_path):
    fix = Augmented("", "", Recipe(**{**BASE, "aug": "fix", "epochs": 3}), 32, (0.5, 0.5, 0.5))
    assert [fix.policy(epoch) for epoch in range(3)] == ["strong", "strong", "minimal"]
    stochastic = Augmented("", "", Recipe(**{**BASE, "aug": "stochastic"}), 32, (0.5, 0.5, 0.5))
    assert {stochastic.policy(0) for _ in range(50)} == {"minimal", "medium", "strong"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "lion"}, r"recipe\.optimizer=lion: expected one of adamw, adam, rmsprop, sgd, adafactor"),
        ({"ema": [1.0]}, r"recipe\.ema=\(1\.0,\): expected a list of numbers from 0 to below 1"),
        ({"swa": "0.7"}, r"recipe\.swa=.*expected a list of numbers"),
        ({"loss": "hinge"}, r"recipe\.loss=hinge: expected one of softmax, binary"),
        ({"sam": -1}, r"recipe\.sam=-1: expected at least 0"),
    ],
)
def test_values_that_no_recipe_has(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**{**BASE, **change})
