"""What only a GPU can show: the same augmentation, no waiting in the loop, the same bits when asked for, MFU."""

import json
import shutil

import pytest
import torch
from photos import MEAN, SIDE, encoded, photos, picture
from pico import BASE, arguments, broken_off
from safetensors.torch import load_file

from modelsoups.config.compose import load
from modelsoups.data import decoders
from modelsoups.data.gpu import augment
from modelsoups.data.transforms import seed_sample, to_uint8, train_crop
from modelsoups.disk import manifests
from modelsoups.experiment.experiment import Experiment
from modelsoups.recipes.recipe import Recipe
from modelsoups.stages import finetune, heads, sweep
from modelsoups.train import throughput
from modelsoups.train.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
RECIPE = Recipe(**{**BASE, "aug": "rand-m9-n2", "mixup": 0.2, "ema": (0.9,), "epochs": 4})


@pytest.fixture(scope="module")
def begun(tmp_path_factory, data):
    home = tmp_path_factory.mktemp("gpu")
    cfg = load([*arguments(home, data), f"runs={home / 'run'}"])
    heads.run(Experiment(cfg))
    sweep.run(Experiment(cfg))
    return home


@pytest.fixture
def train(begun, data, tmp_path):
    """Fine-tune by RECIPE with these overrides; the folder."""

    def act(name, *options, recipe=RECIPE):
        if not (tmp_path / name).exists():
            shutil.copytree(begun / "run", tmp_path / name)
        cfg = load([*arguments(begun, data), f"runs={tmp_path / name}", "ingredient=0", *options])
        assert finetune.fine_tune(Experiment(cfg), recipe, 0) is None
        return cfg.run.ingredient(0)

    return act


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("policy", ["minimal", "medium", "strong"])
def test_augmentation_on_the_gpu_is_that_on_the_cpu(policy):
    images, drawn, transform = list(photos()), [], train_crop(policy, SIDE, MEAN)
    for i, image in enumerate(images):
        seed_sample("gpu", i)
        drawn.append(augment.draw(transform, image, SIDE))
    plan = augment.plan_batch([to_uint8(i) for i in images], drawn, SIDE, MEAN)
    there = plan.pin_memory().to(torch.device("cuda"), non_blocking=True).augmented()
    apart = (there.cpu().int() - plan.augmented().int()).abs().float()
    assert float(apart.mean()) < 0.05
    assert float((apart > 1).float().mean()) < 0.005


def test_jpegs_decoded_on_the_gpu_are_those_of_libjpeg_within_a_few_levels():
    data = [encoded(picture(i, *size)) for i, size in enumerate([(60, 41), (700, 300), (500, 375)])]
    there = decoders.decode_on(torch.device("cuda"), [decoders.left_encoded(d, 2) for d in data])
    for pixels_CHW, d in zip(there, data, strict=True):
        apart = (pixels_CHW.cpu().int() - decoders.by_turbo(d, 2).int()).abs().float()
        assert float(apart.mean()) < 1.5
        assert float((apart > 8).float().mean()) < 0.01


@pytest.mark.parametrize("augment", ["cpu", "gpu"])
def test_a_step_never_makes_the_host_wait(train, monkeypatch, augment):
    update = Trainer.update

    def watched(self, batch):
        torch.cuda.set_sync_debug_mode("error" if self.step >= 2 else "default")
        try:
            return update(self, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Trainer, "update", watched)
    train("run", "finetune.log_every=5", "finetune.compile=none", f"finetune.augment={augment}")


def test_in_bf16_and_compiled_it_learns_as_in_float32(train):
    fast = rows(train("fast"))
    exact = rows(train("exact", "finetune.precision=fp32", "finetune.compile=none"))
    graphs = rows(train("graphs", "finetune.compile=reduce-overhead"))
    assert [r["step"] for r in fast] == [r["step"] for r in exact] == [r["step"] for r in graphs]
    for some in (fast, graphs):
        assert max(abs(a["loss"] - b["loss"]) for a, b in zip(some, exact, strict=True)) < 0.05
    timing = fast[-1]["timing"]
    assert sum(timing["shares"].values()) == pytest.approx(1, abs=0.01)
    assert 0 < timing["mfu"] < 1


@pytest.mark.parametrize("compile", ["none", "default"])
def test_when_asked_for_the_bits_are_the_same_again_and_after_a_resume(train, monkeypatch, compile):
    options = ("finetune.deterministic=true", f"finetune.compile={compile}", "finetune.augment=gpu")
    first, second = train("first", *options), train("second", *options)
    with broken_off(monkeypatch, at=7):
        train("resumed", *options)
    resumed = train("resumed", *options)
    for name in ("model.safetensors", "ema-0.9.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes() == (resumed / name).read_bytes()
    assert not torch.are_deterministic_algorithms_enabled()


def test_every_recipe_trains_in_bf16_and_compiled(train):
    changes = [
        {"optimizer": "adam", "schedule": "cosine_restarts", "cutmix": 0.4, "loss": "binary"},
        {"optimizer": "sgd", "trained": "encoder", "lr": 0.05, "aug": "fix"},
        {"optimizer": "adafactor", "aug": "medium"},
        {"optimizer": "rmsprop", "lr": 1e-4, "sam": 0.05, "swa": (0.0,), "aug": "stochastic"},
    ]
    for number, change in enumerate(changes):
        folder = train(f"r{number}", recipe=Recipe(**{**BASE, **change}))
        assert manifests.manifest_of(folder)["layouts"] == ["1x1 cuda bf16 compiled"]
        assert all(torch.isfinite(t).all() for t in load_file(folder / "model.safetensors").values())


def test_a_batch_in_parts_trains_as_a_whole_one_does(train):
    whole = rows(train("whole", "finetune.precision=fp32"))
    parts = rows(train("parts", "finetune.precision=fp32", "finetune.at_once=16"))
    assert max(abs(a["loss"] - b["loss"]) for a, b in zip(whole, parts, strict=True)) < 1e-3


def test_the_measured_peak_is_that_of_a_gpu():
    assert throughput.peak_flops(torch.device("cuda", 0), torch.bfloat16) > 5e13
