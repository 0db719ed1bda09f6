"""verify timm: a timm model with its own head, on prepared sets, beside the accuracies that timm publishes."""

import pytest
import timm
import torch
from layouts import originals, shift_sets
from safetensors.torch import save_file

from modelsoups.cli import commands, preflight
from modelsoups.config.compose import load
from modelsoups.config.models import ModelConfig
from modelsoups.experiment.experiment import Experiment
from modelsoups.models import from_timm
from modelsoups.published import reruns, timm_results
from modelsoups.stages import prepare


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A small timm model in a file, and prepared sets: val, R and ReaL; the arguments of the command."""
    home = tmp_path_factory.mktemp("preflight")
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), home / "model.safetensors")
    shift_sets(originals(home / "files", "folder"))
    places = [f"data.dir={home / 'shards'}", f"runs={home / 'run'}", f"results={home / 'results'}"]
    small = ["data.check_counts=false", "data.workers=1", "data.holdout_per_class=2"]
    options = ["experiment=imagenet", f"data.root={home / 'files'}", "data.shifts=[r]", "data.extra=[real]"]
    assert prepare.run(Experiment(load([*options, *small, *places, "name=sets"])))
    model = ["model.name=test_resnet", f"model.tag={home / 'model.safetensors'}", "model.image_size=96"]
    return [*places, *model, "evaluate.resize=107"]


def test_the_accuracies_are_those_of_timms_own_model(given):
    experiment = Experiment(load([*preflight.SETTINGS, *given]))
    found = preflight.measured(experiment)
    assert set(found) == {"val", "r", "real"}
    model = timm.create_model("test_resnet").eval()
    model.load_state_dict(from_timm.read_weights(from_timm.file_of(experiment.config.model.tag)).state)
    dataset = experiment.sets["val"]
    pixels = experiment.task.inputs(dataset, experiment.classifier(1000), torch.arange(len(dataset)))
    with torch.inference_mode():
        correct_N = model(pixels).argmax(dim=1).numpy() == dataset.labels_N
    assert found["val"] == correct_N.mean()


def test_the_table_and_the_status_follow_from_the_differences(given, monkeypatch, capsys):
    accuracy = preflight.measured(Experiment(load([*preflight.SETTINGS, *given])))
    published = timm_results.TimmModel(timm_results.SAME_CLIP, accuracy)
    monkeypatch.setattr(timm_results, "timm_models", lambda: {timm_results.SAME_CLIP: published})
    commands.main(["verify", "timm", *given])
    said = capsys.readouterr().out
    assert "not prepared: ImageNet-V2, ImageNet-Sketch, ImageNet-A" in said
    assert "worth downloading" in said
    accuracy["r"] += 0.01
    with pytest.raises(SystemExit) as end:
        commands.main(["verify", "timm", *given])
    assert end.value.code == 1
    said = capsys.readouterr().out
    assert "-1.00" in said
    assert said.count("differs") == 1


def test_the_published_accuracies_agree_and_a_neighbour_does_not():
    models = timm_results.timm_models()
    assert preflight.agrees(models[timm_results.SAME_CLIP].accuracy)
    assert not preflight.agrees(models["vit_base_patch32_clip_224.laion2b_ft_in1k"].accuracy)
    small = {"val": 81.94 / 100 + 0.0009, "v2": 70.73 / 100 + 0.0022, "a": 22.75 / 100 + 0.0025}
    assert not preflight.agrees(small)  # each within its tolerance
    assert all(f"{reruns.tolerance(n, 1, 6):.2f}" == t for n, t in (("val", "0.11"), ("a", "0.27"), ("real", "0.11")))


def test_what_cannot_be_checked_is_said_in_a_line(tmp_path):
    with pytest.raises(ValueError, match=r"data/val is not prepared; run `modelsoups prepare experiment=imagenet"):
        preflight.main([f"data.dir={tmp_path / 'data'}", f"runs={tmp_path}"])
    with pytest.raises(ValueError, match=r"model.name=levit_128s: its classifier is a \w+, not one linear layer"):
        from_timm.load_head(ModelConfig(name="levit_128s", library="timm"))
