"""The initial models: which are created, and from what their linear probe starts."""

from pathlib import Path

import pytest
import torch
from pico import arguments

from modelsoups.checkpoints.formats import load_state
from modelsoups.config.compose import load
from modelsoups.disk import paths, storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.stages import heads

ENCODER = """
from torch import nn

from modelsoups.models.pretrained import Encoder


def load_encoder(model):
    features = nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
    return Encoder(features, 192, (0.5,) * 3, (0.25,) * 3, 32)
"""


@pytest.fixture
def options(data, tmp_path, monkeypatch):
    (tmp_path / "my_encoders.py").write_text(ENCODER)
    monkeypatch.chdir(tmp_path)
    return [*arguments(tmp_path, data), "model.library=my_encoders:", f"runs={tmp_path / 'runs'}"]


def test_a_library_of_ones_own_without_a_text_tower_starts_from_a_linear_probe(options):
    experiment = Experiment(load([*options, "heads.init=lp"]))
    assert heads.run(experiment)
    assert [folder.name for folder in experiment.files.head("lp").parent.iterdir()] == ["lp"]
    state = load_state(experiment.files.head("lp") / paths.MODEL)
    assert state["head.weight"].shape == (80, 192)
    assert torch.isfinite(state["head.weight"]).all()
    assert (state["head.weight"] != 0).any()
    assert (state["head.bias"] != 0).any()
    assert not heads.run(experiment)


def test_a_zero_shot_head_has_no_bias_and_follows_its_options(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [*arguments(tmp_path, data), f"runs={tmp_path / 'runs'}"]
    experiment = Experiment(load([*options, "heads.init=zeroshot"]))
    assert heads.run(experiment)
    state = load_state(experiment.files.head("zeroshot") / paths.MODEL)
    assert not state["head.bias"].any()
    assert not heads.run(experiment)
    probe = [*options, "heads.init=lp", "heads.lp_epochs=1"]
    assert heads.run(Experiment(load(probe)))
    assert not heads.run(Experiment(load(probe)))
    assert heads.run(Experiment(load([*probe, "heads.lp_lr=0.01"])))


def test_recipes_have_initial_models_of_their_own(data, tmp_path, monkeypatch):
    """J.2.3: linear probes at two resolutions and with two losses."""
    monkeypatch.chdir(tmp_path)
    recipe = {"lr": 1e-3, "weight_decay": 0.0, "epochs": 1, "label_smoothing": 0.0, "mixup": 0.0, "aug": "minimal"}
    kinds = [{"init": "lp"}, {"init": "lp-40", "loss": "binary"}, {"loss": "binary"}]
    storage.write_jsonl(tmp_path / "recipes.jsonl", [{**recipe, **kind} for kind in kinds])
    options = [*arguments(tmp_path, data), f"runs={tmp_path / 'runs'}", "heads.lp_epochs=1"]
    experiment = Experiment(load([*options, f"sweep.search={tmp_path / 'recipes.jsonl'}", "heads.lp_loss=recipe"]))
    assert heads.run(experiment)
    made = {folder.name for folder in experiment.files.head("lp").parent.iterdir()}
    assert made == {"zeroshot", "lp", "lp-40-binary", "lp-binary"}
    states = {name: load_state(experiment.files.head(name) / paths.MODEL) for name in made}
    assert len({float(state["head.weight"].sum()) for state in states.values()}) == 4
    starts = [experiment.ingredients.start(r).path for r in experiment.draw.planned()]
    assert [Path(path).parent.name for path in starts] == ["lp", "lp-40-binary", "lp-binary"]
    assert not heads.run(experiment)


def test_a_zero_shot_head_needs_a_text_tower(options):
    with pytest.raises(ValueError, match=r"model\.library=my_encoders: has no text tower; .* heads\.init=lp"):
        heads.run(Experiment(load([*options, "heads.init=zeroshot"])))
