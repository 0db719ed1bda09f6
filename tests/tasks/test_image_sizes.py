"""Training and evaluation at other sizes: weights keep the model's layout, logits lie in files of their own."""

import numpy as np
import pytest
import torch
from pico import BASE, arguments
from PIL import Image
from safetensors.torch import load_file

from modelsoups.config.compose import load
from modelsoups.data.crops import CropStore
from modelsoups.data.transforms import View
from modelsoups.disk import manifests
from modelsoups.experiment.experiment import Experiment
from modelsoups.models.classifier import normalise
from modelsoups.recipes.recipe import Recipe
from modelsoups.stages import finetune, heads
from modelsoups.tasks.text import check_recipe

SEEN = ["evaluate.image_size=47", "evaluate.resize=64", "evaluate.resize_mode=squash"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, data):
    """The configuration of a run with initial models, evaluated at 48 of 64 pixels."""
    home = tmp_path_factory.mktemp("sizes")
    cfg = load([*arguments(home, data), f"runs={home / 'run'}", "finetune.parallel=1", *SEEN])
    heads.run(Experiment(cfg))
    return cfg


def test_the_initial_models_do_not_depend_on_the_evaluation(run, data, tmp_path):
    plain = load([*arguments(tmp_path, data), f"runs={tmp_path / 'run'}"])
    heads.run(Experiment(plain))
    paths = [cfg.run.head("lp") / "model.safetensors" for cfg in (run, plain)]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_model_is_trained_at_another_size_and_keeps_its_layout(run, capsys):
    recipe = Recipe(**{**BASE, "epochs": None, "aug": "inception"}, steps=3, image_size=37)
    assert finetune.fine_tune(Experiment(run), recipe, 0) is None
    assert (
        "recipe.image_size=37: taken as 40, the nearest multiple of the model's patches of 8" in capsys.readouterr().out
    )
    folder = run.run.ingredient(0)
    state, start = (load_file(place / "model.safetensors") for place in (folder, run.run.head("lp")))
    assert {key: t.shape for key, t in state.items()} == {key: t.shape for key, t in start.items()}
    assert not torch.equal(state["encoder.positional_embedding"], start["encoder.positional_embedding"])
    manifest = manifests.manifest_of(folder)
    assert (manifest["steps"], manifest["images"]) == (3, 192)
    written = manifest["inputs"]["recipe"]
    assert (written["image_size"], written["steps"], written["epochs"]) == (37, 3, None)


@torch.inference_mode()
def test_logits_are_those_of_the_view_and_lie_in_a_file_of_their_own(run):
    experiment = Experiment(run)
    state = load_file(run.run.head("lp") / "model.safetensors")
    path = experiment.logits.path("holdout", "0" * 64)
    assert path.name.endswith("-47-of-64-squashed.safetensors")
    assert experiment.soup_inputs([])["view"] == "47-of-64-squashed"
    dataset = experiment.sets.holdout
    found = experiment.logits.forward("holdout", state)
    model = experiment.classifier(len(dataset.classes))
    for index in (0, 77):
        square = dataset.image(index).resize((64, 64), Image.Resampling.BICUBIC).crop((8, 8, 56, 56))
        pixels_1CHW = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None]
        torch.testing.assert_close(model(normalise(model, pixels_1CHW))[0], found[index], rtol=1e-4, atol=1e-4)


def test_a_large_set_is_decoded_at_the_size_that_the_model_takes(run, tmp_path):
    experiment = Experiment(run)
    experiment.task.crops = CropStore(tmp_path, small=0)
    experiment.prepare_inputs(["holdout"])
    found = experiment.task.crops.pixels(experiment.sets.holdout, View(48, 64, squash=True))
    assert found.shape == (128, 3, 48, 48)


def test_without_these_keys_files_keep_their_names(data, tmp_path):
    plain = Experiment(load([*arguments(tmp_path, data), f"runs={tmp_path / 'run'}", "evaluate.image_size=32"]))
    assert plain.task.view == ""
    name = f"holdout-{plain.sets.holdout.sha256[:12]}.safetensors"
    assert plain.logits.path("holdout", "0" * 64).name == name


def test_sizes_that_do_not_go_together_are_refused(run, data, tmp_path):
    with pytest.raises(ValueError, match=r"^evaluate\.resize=30: expected at least the 32 pixels of the crop$"):
        load([*arguments(tmp_path, data), "evaluate.resize=30"])
    options = ["evaluate.image_size=37", "evaluate.resize=38"]
    rounded = Experiment(load([*arguments(tmp_path, data), f"runs={tmp_path / 'run'}", *options]))
    model = rounded.classifier(len(rounded.sets.holdout.classes))
    with pytest.raises(ValueError, match=r"^evaluate\.resize=38: expected at least the 40 pixels of the crop$"):
        rounded.task.seen_by(model)
    says = r"^recipe\.image_size=64: texts are trained without it; set recipe\.image_size=null$"
    with pytest.raises(ValueError, match=says):
        check_recipe(Recipe(**{**BASE, "label_smoothing": 0.0}, image_size=64))
