"""The hold-out is evaluated every n steps, and the best step of a run and of each average is what the run leaves."""

import json
import os
import shutil
import signal
import warnings

import pytest
import torch
from pico import BASE, arguments, broken_off
from ranks import train_on
from safetensors.torch import load_file

from modelsoups.config.compose import load
from modelsoups.disk import manifests, storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.recipes.recipe import Recipe
from modelsoups.stages import finetune, heads, sweep
from modelsoups.train import evaluations
from modelsoups.train.evaluations import exchanged

# A learning rate that unlearns, so that the last step is not the best one.
BEST = {**BASE, "epochs": None, "steps": 8, "lr": 2e-3, "schedule": "constant", "ema": (0.5, 0.9999999)}
BEST |= {"select": "best", "ema_warmup": True}
NAMES = ["model", "ema-0.5", "ema-0.9999999"]


@pytest.fixture(scope="module")
def begun(tmp_path_factory, data):
    """The arguments of a run whose data are the training set and the hold-out alone, and its folder."""
    home = tmp_path_factory.mktemp("evaluations")
    for name in ("train", "holdout"):
        shutil.copytree(data / name, home / "data" / name)
    (home / "recipes.jsonl").write_text(json.dumps(Recipe(**BEST).to_json()) + "\n")
    keys = [f"recipe.{key}=???" for key in Recipe.names()]
    options = [*keys, f"sweep.search={home / 'recipes.jsonl'}", "finetune.parallel=1", "finetune.evaluate_every=3"]
    args = [*arguments(home, home / "data"), *options]
    cfg = load([*args, f"runs={home / 'run'}"])
    heads.run(Experiment(cfg))
    sweep.run(Experiment(cfg))
    return args, home / "run"


@pytest.fixture
def make(begun, tmp_path):
    def copy(name, *more):
        shutil.copytree(begun[1], tmp_path / name)
        return load([*begun[0], f"runs={tmp_path / name}", *more])

    return copy


def trained(cfg, **changes):
    """The folder of ingredient 0, trained with the recipe of the draw and these changes."""
    recipe = Experiment(cfg).draw.recipes()[0]
    assert finetune.fine_tune(Experiment(cfg), Recipe(**{**vars(recipe), **changes}), 0) is None
    return cfg.run.ingredient(0)


def content(folder):
    """All that a run leaves: its weights and evaluations, and the steps that its manifest records."""
    left = {path.name: path.read_bytes() for path in [*folder.glob("*.safetensors"), folder / "evaluations.jsonl"]}
    return left, manifests.manifest_of(folder)["selected"]


@pytest.fixture(scope="module")
def straight(begun, tmp_path_factory):
    """The configuration of a run of one process, its folder, and what it leaves."""
    home = tmp_path_factory.mktemp("straight")
    shutil.copytree(begun[1], home / "run")
    cfg = load([*begun[0], f"runs={home / 'run'}"])
    folder = trained(cfg)
    return cfg, folder, content(folder)


def test_the_weights_are_those_of_the_step_with_the_best_score_on_the_holdout(straight):
    cfg, folder, (_, selected) = straight
    rows = storage.read_jsonl(folder / "evaluations.jsonl")
    assert [(row["step"], row["weights"]) for row in rows] == [(step, name) for step in (3, 6, 8) for name in NAMES]
    assert list(selected) == NAMES
    sets, logits = Experiment(cfg).sets, Experiment(cfg).logits
    for name, chosen in selected.items():
        points = {row["step"]: row["points"] for row in rows if row["weights"] == name}
        step = max(points, key=points.get)  # the first of equals
        assert (chosen["step"], chosen["points"], chosen["examples"]) == (step, points[step], len(sets.holdout))
        outcomes = logits.forward("holdout", load_file(folder / f"{name}.safetensors"))
        correct = int((outcomes.argmax(1) == torch.from_numpy(sets.holdout.labels_N)).sum())
        assert (correct, chosen["score"]) == (chosen["points"], correct / len(sets.holdout))
    assert any(chosen["step"] < 8 for chosen in selected.values())


def test_a_run_broken_off_and_resumed_leaves_the_same_bytes(make, straight, monkeypatch):
    cfg = make("resumed")
    for step in (4, 7):
        with broken_off(monkeypatch, at=step):
            trained(cfg)
    assert content(trained(cfg)) == straight[2]


def test_a_run_killed_in_the_middle_of_an_evaluation_leaves_the_same_bytes(make, straight, monkeypatch):
    cfg = make("killed")

    def dying(path, row):
        with open(path, "a") as file:
            file.write(json.dumps(row) + "\n" if row["step"] < 6 or row["weights"] == "model" else '{"step')
        if row["step"] == 6 and row["weights"] != "model":
            os.kill(os.getpid(), signal.SIGKILL)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons: of forking; nothing else runs here
        child = os.fork()
    if child == 0:
        try:
            evaluations.append = dying
            trained(cfg)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (cfg.run.ingredient(0) / "evaluations.jsonl").read_text().endswith('{"step')
    assert content(trained(cfg)) == straight[2]


def test_evaluations_alone_change_no_weights(make):
    watched, alone = make("watched"), make("alone", "finetune.evaluate_every=null")
    folders = [trained(cfg, select="last") for cfg in (watched, alone)]
    one, two = ({p.name: p.read_bytes() for p in folder.glob("*.safetensors")} for folder in folders)
    assert one == two
    assert [(folder / "evaluations.jsonl").exists() for folder in folders] == [True, False]
    assert all("selected" not in manifests.manifest_of(folder) for folder in folders)


def test_two_ranks_share_an_evaluation_and_score_as_one_process_does(make, straight):
    cfg = make("ranks", "ingredient=0")
    assert train_on(cfg, 2, lambda: finetune.run(Experiment(cfg))) == [0, 0]
    rows, others = (storage.read_jsonl(f / "evaluations.jsonl") for f in (cfg.run.ingredient(0), straight[1]))
    assert [(r["step"], r["weights"]) for r in rows] == [(r["step"], r["weights"]) for r in others]
    assert all(abs(a["points"] - b["points"]) <= 2 for a, b in zip(rows, others, strict=True))  # sums round otherwise


def test_another_holdout_or_interval_is_another_ingredient(make):
    cfg = make("other")
    trained(cfg)
    cfg.finetune.evaluate_every = 4
    with pytest.raises(ValueError, match="trained with a different selection; choose another run"):
        finetune.run(Experiment(cfg))


def test_a_drawn_selection_without_evaluations_is_refused_before_anything_is_trained(make):
    cfg = make("never", "finetune.evaluate_every=null")
    with pytest.raises(ValueError, match=r"^recipe\.select=best needs evaluations on the hold-out; set finetune\.eval"):
        finetune.run(Experiment(cfg))
    assert not cfg.run.ingredient(0).exists()


def test_a_model_gets_its_own_weights_back_to_the_bit():
    model = torch.nn.BatchNorm1d(2)
    own = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    other = {key: tensor + 1 for key, tensor in own.items()}
    with exchanged(model, other):
        assert all(torch.equal(model.state_dict()[key], other[key]) for key in own)
    assert all(torch.equal(model.state_dict()[key], own[key]) for key in own)
