"""The losses of the first 20 steps of six recipes are what they were: recorded by `python tests/train/test_losses.py`.

Record them again only after a change that is meant to change training, and say why.
"""

import json
import sys
import tempfile
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # for a recording

from pico import arguments, make_data

from modelsoups.config.compose import load
from modelsoups.disk import storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.recipes.recipe import Recipe
from modelsoups.stages import finetune, heads, sweep

FILE = Path(__file__).parents[1] / "golden" / "losses.json"
TOLERANCE = 1e-3  # another CPU sums in another order, and training amplifies that
BASE = {"lr": 5e-4, "weight_decay": 0.05, "epochs": 4, "label_smoothing": 0.0, "mixup": 0.0, "aug": "minimal",
        "seed": 5, "batch_size": 64, "warmup_steps": 40, "clip": 1.0, "min_crop": 0.9, "flip": 0.0}  # fmt: skip
RECIPES = {
    "the paper's: smoothing, mixup, RandAugment": {"label_smoothing": 0.1, "mixup": 0.5, "aug": "rand-m7-n1"},
    "medium augmentation, timm's crop, mirrored": {"aug": "medium", "min_crop": 0.08, "flip": 0.5},
    "sam, strong augmentation": {"sam": 0.05, "aug": "strong"},
    "sgd, restarts, frozen head": {"optimizer": "sgd", "schedule": "cosine_restarts", "trained": "encoder", "lr": 0.05},
    "adafactor, binary, cutmix": {"optimizer": "adafactor", "loss": "binary", "cutmix": 0.4, "schedule": "linear"},
    "rmsprop, constant, fix augmentation": {"optimizer": "rmsprop", "schedule": "constant", "aug": "fix", "lr": 1e-4},
}


def prepared(home: Path, data: Path):
    """The configuration of a run folder whose draw is the six recipes."""
    lines = [json.dumps(Recipe(**{**BASE, **changes}).__dict__) for changes in RECIPES.values()]
    (home / "recipes.jsonl").write_text("\n".join(lines) + "\n")
    keys = [f"recipe.{key}=???" for key in Recipe.names()]
    options = [*keys, f"sweep.search={home / 'recipes.jsonl'}", f"runs={home / 'run'}", "finetune.parallel=1"]
    cfg = load([*arguments(home, data), *options])
    heads.run(Experiment(cfg))
    sweep.run(Experiment(cfg))
    return cfg


def losses(cfg, index: int) -> list[float]:
    assert finetune.fine_tune(Experiment(cfg), Experiment(cfg).draw.recipes()[index], index) is None
    return [row["loss"] for row in storage.read_jsonl(cfg.run.ingredient(index) / "metrics.jsonl")]


@pytest.fixture(scope="module")
def cfg(tmp_path_factory, data):
    return prepared(tmp_path_factory.mktemp("losses"), data)


@pytest.mark.parametrize("index", range(len(RECIPES)), ids=RECIPES)
def test_the_first_20_losses_are_the_recorded_ones(cfg, index):
    recorded = json.loads(FILE.read_text())[list(RECIPES)[index]]
    assert losses(cfg, index) == pytest.approx(recorded, rel=TOLERANCE)
    assert len(recorded) == 20


def record() -> None:
    torch.set_num_threads(1)  # as conftest.py does
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        cfg = prepared(home, make_data(home / "data"))
        FILE.write_text(json.dumps({name: losses(cfg, i) for i, name in enumerate(RECIPES)}, indent=1) + "\n")


if __name__ == "__main__":
    record()
