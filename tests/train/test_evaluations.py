"""The hold-out is evaluated every n steps, and the best step of a run and of each average is what the run leaves."""

import json
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from pico import BASE, broken_off
from ranks import codes, fork, train_on
from safetensors.torch import load_file
from vectors import Regression, Vectors

from modelsoups.config.schema import FinetuneConfig
from modelsoups.disk import manifests, storage
from modelsoups.recipes.recipe import Recipe
from modelsoups.soup.coefficients import Ingredient
from modelsoups.stages import finetune
from modelsoups.train import evaluations
from modelsoups.train.evaluations import exchanged
from modelsoups.train.ranks import ALONE, joined
from modelsoups.train.trainer import Trainer, Workspace
from modelsoups.weights import state_dicts

# A constant and high learning rate: the last step is not the best one.
RECIPE = {**BASE, "epochs": None, "steps": 11, "lr": 0.8, "schedule": "constant", "batch_size": 16, "clip": 10.0}
RECIPE |= {"ema": (0.5, 0.9999999), "ema_warmup": True, "select": "best", "warmup_steps": 0}
NAMES = ["model", "ema-0.5", "ema-0.9999999"]
HOLDOUT = Vectors(1)


def trained(folder, every=3, ranks=ALONE, **changes):
    """Train the line in a folder, as the stage does it; return the folder."""
    task, folder = Regression(), folder / "000"
    folder.mkdir(parents=True, exist_ok=True)
    model, start = task.build(None, 1), folder.parent / f"start{ranks.rank}.safetensors"
    storage.save_weights(start, model.state_dict())
    settings = FinetuneConfig(evaluate_every=every, checkpoint_every=2, log_every=1)
    workspace = Workspace(folder, "x", ranks, holdout=HOLDOUT if every else None)
    trainer = Trainer(task, Recipe(**{**RECIPE, **changes}), settings, model, Vectors(0), workspace)
    trainer.load(Ingredient("start", str(start), state_dicts.state_sha256(model.state_dict()), None))
    assert trainer.train() is None
    if ranks.first:
        finetune._write(folder, trainer, {})
    return folder


def content(folder):
    """All that a run leaves: its weights and evaluations, and the steps that its manifest records."""
    left = {path.name: path.read_bytes() for path in [*folder.glob("*.safetensors"), folder / "evaluations.jsonl"]}
    return left, manifests.manifest_of(folder)["selected"]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("straight"))


def test_the_weights_are_those_of_the_step_with_the_best_score_on_the_holdout(straight):
    rows = storage.read_jsonl(straight / "evaluations.jsonl")
    assert [(row["step"], row["weights"]) for row in rows] == [(step, name) for step in (3, 6, 9, 11) for name in NAMES]
    selected = content(straight)[1]
    assert list(selected) == NAMES
    for name, chosen in selected.items():
        points = {row["step"]: row["points"] for row in rows if row["weights"] == name}
        step = max(points, key=points.get)  # the first of equals
        assert chosen == {"step": step, "points": points[step], "score": points[step], "examples": 64}
        state = load_file(straight / f"{name}.safetensors")
        predicted_N = HOLDOUT.inputs_N4 @ state["head.weight"][0] + state["head.bias"]
        error = float((predicted_N - torch.from_numpy(HOLDOUT.labels_N)).square().mean())
        assert chosen["score"] == pytest.approx(-error, rel=1e-5)
    assert any(chosen["step"] < 11 for chosen in selected.values())


def test_each_weights_have_the_step_that_a_run_of_that_length_ends_with(straight, tmp_path):
    for name, chosen in content(straight)[1].items():
        shorter = trained(tmp_path / name, every=None, select="last", steps=chosen["step"])
        assert (shorter / f"{name}.safetensors").read_bytes() == (straight / f"{name}.safetensors").read_bytes()


@pytest.mark.parametrize("steps", [(1,), (4, 7), (10,)])
def test_a_run_broken_off_and_resumed_leaves_the_same_bytes(straight, tmp_path, monkeypatch, steps):
    for step in steps:
        with broken_off(monkeypatch, at=step):
            trained(tmp_path)
    assert content(trained(tmp_path)) == content(straight)


def dying_in_an_evaluation(path, row):
    """Append an evaluation, but die of kill -9 in the middle of the second line of step 6."""
    dies = row["step"] == 6 and row["weights"] != "model"
    with open(path, "a") as file:
        file.write('{"step' if dies else json.dumps(row) + "\n")
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_killed_in_the_middle_of_an_evaluation_leaves_the_same_bytes(straight, tmp_path):
    def act():
        evaluations.append = dying_in_an_evaluation
        trained(tmp_path)

    assert codes([fork(act)]) == [-signal.SIGKILL]
    assert (tmp_path / "000/evaluations.jsonl").read_text().endswith('{"step')
    assert not (tmp_path / "000/model.safetensors").exists()
    assert content(trained(tmp_path)) == content(straight)


def test_evaluations_alone_change_no_weights(tmp_path):
    folders = trained(tmp_path / "one", select="last"), trained(tmp_path / "two", every=None, select="last")
    one, two = ({p.name: p.read_bytes() for p in folder.glob("*.safetensors")} for folder in folders)
    assert one == two
    assert [(folder / "evaluations.jsonl").exists() for folder in folders] == [True, False]
    assert all("selected" not in manifests.manifest_of(folder) for folder in folders)


def test_two_ranks_share_an_evaluation_and_score_as_one_process_does(straight, tmp_path):
    def act():
        with joined() as ranks:
            trained(tmp_path, ranks=ranks)

    assert train_on(None, 2, act) == [0, 0]
    rows, others = (storage.read_jsonl(folder / "evaluations.jsonl") for folder in (tmp_path / "000", straight))
    assert [(r["step"], r["weights"]) for r in rows] == [(r["step"], r["weights"]) for r in others]
    assert [r["score"] for r in rows] == pytest.approx([r["score"] for r in others], rel=1e-3)


def test_the_selection_is_part_of_what_an_ingredient_is_made_from():
    part = SimpleNamespace(sha256="s")
    config = SimpleNamespace(finetune=FinetuneConfig(decode="pil", evaluate_every=5), task="images")
    ingredients = SimpleNamespace(start=lambda recipe: part)
    sets, task = SimpleNamespace(train=part, holdout=part), SimpleNamespace(view="")
    run = SimpleNamespace(config=config, ingredients=ingredients, sets=sets, task=task)
    assert "selection" not in finetune._inputs(run, Recipe(**BASE))
    chosen = finetune._inputs(run, Recipe(**BASE, select="best"))["selection"]
    assert chosen == {"every": 5, "holdout": "s", "view": ""}


def test_a_model_gets_its_own_weights_back_to_the_bit():
    model = torch.nn.BatchNorm1d(2)
    own = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    other = {key: tensor + 1 for key, tensor in own.items()}
    with exchanged(model, other):
        assert all(torch.equal(model.state_dict()[key], other[key]) for key in own)
    assert all(torch.equal(model.state_dict()[key], own[key]) for key in own)
