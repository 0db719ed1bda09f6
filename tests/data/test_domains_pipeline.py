"""experiment=pacs and experiment=cifar10 end to end, with a tiny convolutional network; BatchNorm frozen and live."""

import cifar_files
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from modelsoups.checkpoints.formats import load_state
from modelsoups.cli import commands, pipeline
from modelsoups.config.compose import load
from modelsoups.experiment.batchnorm import is_reestimated
from modelsoups.experiment.experiment import Experiment
from modelsoups.report.numbers import Numbers

CLASSES = ("dog", "elephant", "giraffe")
SMALL = [
    "data.workers=1", "data.test_fraction=0.25", "finetune.parallel=1", "sweep.count=2",
    "recipe.batch_size=8", "recipe.epochs=1",
    "heads.lp_epochs=1", "soup.orders=1", "soup.learned_epochs=1", "evaluate.wise_ft=[0.5]", "wandb=disabled",
    "model.name=test_efficientnet", "model.image_size=32", "model.tag=weights.safetensors",
]  # fmt: skip
PACS = ["experiment=pacs", "data.root=PACS"]
CIFAR = ["experiment=cifar10", "data.root=.", "data.check_counts=false", "data.holdout_per_class=2"]
CHOOSING = ("prepare", "heads", "sweep", "finetune", "evaluate", "soup")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A small PACS and CIFAR-10 in the official layouts, and weights of a network with BatchNorm."""
    home = tmp_path_factory.mktemp("pacs")
    cifar_files.write_batches(home)
    cifar_files.write_new_test_set(home)
    random = np.random.default_rng(0)
    for domain in ("art_painting", "cartoon", "photo", "sketch"):
        for c, class_name in enumerate(CLASSES):
            folder = home / "PACS" / domain / class_name
            folder.mkdir(parents=True)
            for i in range(8):
                pixels_HWC = random.integers(60 * c, 60 * c + 120, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels_HWC).save(folder / f"pic_{i:03d}.jpg")
    torch.manual_seed(0)
    save_file(timm.create_model("test_efficientnet", num_classes=0).state_dict(), home / "weights.safetensors")
    return home


def run(home, monkeypatch, *overrides, stages=tuple(commands.STAGES)):
    monkeypatch.chdir(home)
    cfg = load([*overrides, *SMALL])
    pipeline.run_stages(commands.modules_of(list(stages)), cfg)
    return Experiment(cfg)


def statistics(path):
    return {k: t for k, t in load_state(path).items() if k.endswith(("running_mean", "running_var"))}


def equal(one, two):
    return all(torch.equal(one[k], two[k]) for k in one)


def test_frozen_statistics_stay_those_of_the_start_in_members_and_soups(home, monkeypatch, capsys):
    done = run(home, monkeypatch, *PACS, "name=frozen")
    start = statistics(done.files.head("lp") / "model.safetensors")
    found = done.ingredients.find().ingredients
    assert len(found) == 2
    for path in [*(i.path for i in found), done.files.mixed("greedy")]:
        assert equal(start, statistics(path))
    assert [each.name for each in Numbers.read(done.files.results).sets] == ["holdout", "test", "sketch"]
    assert (done.files.results / "index.html").exists()
    with pytest.raises(SystemExit):
        run(home, monkeypatch, *PACS, "name=frozen", "soup.batchnorm=reestimated", stages=CHOOSING)
    assert "the models were trained with the initial model's statistics" in capsys.readouterr().err


def test_live_statistics_are_updated_in_training_and_estimated_anew_for_soups(home, monkeypatch):
    options = [*CIFAR, "name=live", "recipe.batchnorm=live", "soup.write=[uniform]", "analyse.in_pipeline=false"]
    live = run(home, monkeypatch, *options)
    assert [each.name for each in Numbers.read(live.files.results).sets] == ["holdout", "test", "v6"]
    assert (live.files.results / "index.html").exists()
    found = live.ingredients.find().ingredients
    members = [statistics(i.path) for i in found]
    assert not equal(members[0], members[1])
    uniform = statistics(live.files.mixed("uniform"))
    mean = {key: (members[0][key] + members[1][key]) / 2 for key in members[0]}
    assert not equal(mean, uniform)
    # by hand: the means of the first BatchNorm's inputs over the training images, in evaluation's view
    state = live.soups.mixed(live.soups.read("uniform"))
    network, train = live.classifier(10), live.sets.train
    network.load_state_dict(dict(state))
    images = live.task.inputs(train, network, torch.arange(len(train)))
    first = network.encoder.conv_stem(images).mean(dim=(0, 2, 3))
    assert torch.allclose(uniform["encoder.bn1.running_mean"], first.detach(), atol=1e-5)
    averaged = run(home, monkeypatch, *options, "soup.batchnorm=averaged", stages=["soup"])
    kept = statistics(averaged.files.mixed("uniform"))
    assert all(torch.allclose(kept[key], mean[key], atol=1e-6) for key in mean)


def test_new_statistics_for_a_model_without_batchnorm_are_refused():
    with pytest.raises(ValueError, match="this model has no BatchNorm; set"):
        is_reestimated("reestimated", [], ["head.weight"])
