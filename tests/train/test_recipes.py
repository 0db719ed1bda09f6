"""Every recipe of the paper trains, resumes to the bit and gives ingredients that the soups take."""

import json
import shutil
from dataclasses import asdict

import pytest
import torch
from pico import BASE, arguments, broken_off, modelsoups
from safetensors.torch import load_file

from modelsoups.config.compose import load
from modelsoups.disk import manifests, storage
from modelsoups.experiment import ingredients as pool
from modelsoups.experiment.experiment import Experiment
from modelsoups.models.classifier import normalise
from modelsoups.recipes.recipe import Recipe
from modelsoups.stages import finetune, heads, sweep
from modelsoups.train.trainer import Trainer, Workspace

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
    heads.run(Experiment(cfg))
    sweep.run(Experiment(cfg))
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


@pytest.mark.parametrize("index", range(len(RECIPES)), ids=RECIPES)
def test_each_recipe_trains_and_resumes_to_the_bit(cfg, monkeypatch, index):
    trains_and_resumes(cfg, monkeypatch, Experiment(cfg).draw.recipes(), index)


def trains_and_resumes(cfg, monkeypatch, recipes, index):
    """The losses of an ingredient that is broken off and resumed, and ends with the bytes of one that was not."""
    assert finetune.fine_tune(Experiment(cfg), recipes[index], index) is None
    folder = cfg.run.ingredient(index)
    straight, rows = {p.name: p.read_bytes() for p in folder.glob("*.safetensors")}, losses(folder)
    assert len(rows) == 10  # 5 steps an epoch
    assert all(loss > 0 for loss in rows)
    shutil.rmtree(folder)
    with broken_off(monkeypatch, at=7):
        finetune.fine_tune(Experiment(cfg), recipes[index], index)
    assert finetune.fine_tune(Experiment(cfg), recipes[index], index) is None
    assert {p.name: p.read_bytes() for p in folder.glob("*.safetensors")} == straight
    assert losses(folder) == rows
    return rows


def test_in_bf16_with_batched_augmentation_a_run_resumes_to_the_bit_and_learns_the_same(cfg, monkeypatch):
    recipes = [Recipe(**{**BASE, "aug": "rand-m9-n2", "mixup": 0.2, "flip": 0.5})]
    finetune.fine_tune(Experiment(cfg), recipes[0], 0)
    exact = losses(cfg.run.ingredient(0))
    shutil.rmtree(cfg.run.ingredient(0))
    cfg.finetune.precision, cfg.finetune.augment = "bf16", "gpu"
    rows = trains_and_resumes(cfg, monkeypatch, recipes, 0)
    assert rows != exact
    assert max(abs(a - b) for a, b in zip(rows, exact, strict=True)) < 0.1
    assert manifests.manifest_of(cfg.run.ingredient(0))["layouts"] == ["1x1 bf16 augment=gpu"]


def test_another_way_to_compute_is_said_when_a_run_resumes(cfg, monkeypatch, capsys):
    asked = iter([False, True])
    monkeypatch.setattr("modelsoups.train.ranks.Ranks.stop", lambda self: next(asked, False))
    recipes = [Recipe(**BASE)]
    with pytest.raises(SystemExit):
        finetune.fine_tune(Experiment(cfg), recipes[0], 0)
    cfg.finetune.precision = "bf16"
    finetune.fine_tune(Experiment(cfg), recipes[0], 0)
    assert "resumes with 1x1 bf16 (processes x micro-batches) instead of 1x1" in capsys.readouterr().out
    assert manifests.manifest_of(cfg.run.ingredient(0))["layouts"] == ["1x1", "1x1 bf16"]


def test_an_ensemble_is_distilled_and_its_students_loss_is_worked_out_from_the_teachers(cfg, monkeypatch):
    finetune.fine_tune(Experiment(cfg), Experiment(cfg).draw.recipes()[0], 0)
    teachers = [str(cfg.run.ingredient(0)), str(cfg.run.head("lp") / "model.safetensors")]  # a folder and a file
    student = Recipe(**{**BASE, "teachers": teachers, "epochs": 2})
    recipes = [None, student]
    rows = trains_and_resumes(cfg, monkeypatch, recipes, 1)
    manifest = manifests.manifest_of(cfg.run.ingredient(1))
    assert len(manifest["inputs"]["teachers"]) == 2
    # the first loss: cross-entropy of the initial model with the softmax of the teachers' mean logits
    experiment = Experiment(cfg)
    train, workspace = experiment.sets.train, Workspace(cfg.run.ingredient(2), "x")
    model = experiment.classifier(len(train.classes))
    trainer = Trainer(experiment.task, student, cfg.finetune, model, train, workspace)
    trainer.load(experiment.ingredients.initial()["initialization"])
    pixels, _ = next(trainer.batches())
    images = normalise(trainer.model, pixels)
    with torch.no_grad():
        own = trainer.model.train()(images)
        others = [teacher(images) for teacher in trainer.teachers]
    targets = (sum(others) / 2).softmax(1)
    assert rows[0] == pytest.approx(float(-(targets * own.log_softmax(1)).sum(1).mean()), abs=1e-5)


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ("nowhere", r"recipe\.teachers: nowhere does not exist; give a fine-tuned model's folder or weight file"),
        ("{run}", r"recipe\.teachers: .* is not a finished model"),
    ],
)
def test_teachers_that_are_not_there_are_named_before_anything_is_trained(cfg, teacher, message):
    rows = storage.read_jsonl(cfg.run.draw)
    rows[0]["recipe"]["teachers"] = [teacher.format(run=cfg.run.root)]
    storage.write_jsonl(cfg.run.draw, rows)
    with pytest.raises(ValueError, match=message):
        finetune.run(Experiment(cfg))
    assert not cfg.run.ingredient(1).exists()


def test_averages_along_runs_go_through_the_whole_pipeline(begun, data, tmp_path):
    """Two runs, each with an EMA and an SWA beside it: six ingredients are evaluated, souped and reported."""
    short = ["recipe.epochs=2", "sweep.count=2", "recipe.ema=[0.99]", "recipe.swa=[0.7]", "soup.orders=1"]
    done = modelsoups(tmp_path, *arguments(tmp_path, data), *short)
    assert done.returncode == 0, done.stderr
    run, results = tmp_path / "runs/miniature", tmp_path / "results/miniature"
    greedy = json.loads((run / "soups/uniform.json").read_text())
    assert sorted(greedy["ingredients"]) == [f"{i}{a}" for i in ("000", "001") for a in ("", "-ema-0.99", "-swa-0.7")]
    rows = [json.loads(line) for line in (results / "results.jsonl").read_text().splitlines()]
    assert {"best", "uniform", "greedy", "learned", "ensemble"} <= {row.get("row") for row in rows}
    assert "000-ema-0.99" in (results / "results.jsonl").read_text()


def test_averages_are_ingredients_of_their_own(cfg):
    index = list(RECIPES).index("averages, fix")
    recipes = Experiment(cfg).draw.recipes()
    finetune.fine_tune(Experiment(cfg), recipes[index], index)
    ingredients = {i.id: i for i in Experiment(load_minimum(cfg)).ingredients.find().ingredients}
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
    finetune.fine_tune(Experiment(cfg), Experiment(cfg).draw.recipes()[index], index)
    after = load_file(cfg.run.ingredient(index) / "model.safetensors")
    before = load_file(cfg.run.head("lp") / "model.safetensors")
    assert torch.equal(after["head.weight"], before["head.weight"])
    assert not torch.equal(after["encoder.conv1.weight"], before["encoder.conv1.weight"])
    finetune.fine_tune(
        Experiment(cfg), Experiment(cfg).draw.recipes()[0], 0
    )  # the next run of the process trains its head again
    assert not torch.equal(load_file(cfg.run.ingredient(0) / "model.safetensors")["head.weight"], before["head.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "lion"}, r"recipe\.optimizer=lion: expected one of adamw, adam, rmsprop, sgd, adafactor"),
        ({"ema": [1.0]}, r"recipe\.ema=\[1\.0\]: expected a list of numbers of at least 0 and below 1"),
        ({"swa": "0.7"}, r"recipe\.swa=.*expected a list of numbers"),
        ({"loss": "hinge"}, r"recipe\.loss=hinge: expected one of softmax, binary"),
        ({"sam": -1}, r"recipe\.sam=-1: expected at least 0"),
        ({"teachers": "runs/a"}, r"recipe\.teachers=runs/a: expected a list of fine-tuned models' folders or"),
        ({"teachers": [3]}, r"recipe\.teachers=\[3\]: expected a list"),
    ],
)
def test_values_that_no_recipe_has(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**{**BASE, **change})
