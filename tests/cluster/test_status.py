"""How far a sweep is, from folders made by hand."""

import json

import pytest
from pico import BASE

from modelsoups.cluster import slurm, status
from modelsoups.cluster.status import IngredientStatus, epochs_of, scan, summary
from modelsoups.config.compose import load
from modelsoups.disk import manifests, storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.recipes.recipe import Recipe


def write(cfg, index, name, value):
    storage.write_text(cfg.run.ingredient(index) / name, value if isinstance(value, str) else json.dumps(value))


def row(epoch, seconds, ranks=1):
    return json.dumps({"step": 1, "epoch": epoch, "loss": 0.5, "timing": {"seconds": seconds, "ranks": ranks}}) + "\n"


@pytest.fixture
def under_way(cfg):
    done = {"inputs": {}, "files": {}, "seconds": 7200, "layouts": ["1x1", "2x1"], "loss": 0.1}
    write(cfg, 0, "manifest.json", done)
    write(cfg, 1, "metrics.jsonl", row(0.5, 900, 4) + row(1.0, 1800, 4) + '{"step": 2, "epo')
    write(cfg, 2, "metrics.jsonl", row(2.0, 3600))
    write(cfg, 2, "failed.json", {"reason": "the loss is nan at step 7"})
    write(cfg, 3, "metrics.jsonl", row(1.0, 1800))
    write(cfg, 4, "recipe.json", {})
    return cfg


JOBS = [
    slurm.Job(7, 1, "sweep", "RUNNING", "node[1-2]", "None"),
    slurm.Job(7, 4, "sweep", "PENDING", "", "Priority"),
    slurm.Job(8, None, "evaluate", "PENDING", "", "Dependency"),
]


def test_every_state_is_told_apart(under_way):
    states = scan(under_way.run, Experiment(under_way).draw.recipes(), JOBS)
    assert [s.state for s in states] == ["done", "running", "failed", "stopped", "queued", "not started"]
    assert states[1] == IngredientStatus(1, "running", 1.0, 4, 0.5, 4, 0.5, "7_1 node[1-2]")
    assert states[1].hours_left == 1.5
    assert states[2].note == "the loss is nan at step 7"
    assert states[4].note == "7_4 Priority"
    assert states[5].hours_left is None


def test_gpu_hours_are_summed_over_ranks_and_scaled_to_what_is_left(under_way):
    states = scan(under_way.run, Experiment(under_way).draw.recipes(), JOBS)
    assert summary(states) == [
        "6 ingredients: 1 done, 1 running, 1 queued, 1 stopped, 1 not started, 1 failed",
        # 2 h x 2 + 0.5 h x 4 + 1 h + 0.5 h over 4 + 1 + 2 + 1 epochs; 3 + 3 + 4 + 4 epochs are left
        "GPU-hours: 7.5 spent on training, about 13.1 left",
    ]
    rest = "GPU-hours: 0.0 spent on training, the hours left are unknown until the first ingredient writes metrics"
    assert summary(scan(under_way.run, Experiment(under_way).draw.recipes(), [])[5:])[1] == rest


def test_a_length_in_steps_is_told_in_epochs_of_the_training_set(tmp_path):
    recipe = Recipe(**{**BASE, "epochs": None}, steps=12)  # of 64 images
    with pytest.raises(ValueError, match=r"train is not prepared, so the epochs of recipe\.steps=12 are unknown$"):
        epochs_of(recipe, tmp_path / "train")
    manifests.finish(tmp_path / "train", {}, [], images=320)
    assert epochs_of(recipe, tmp_path / "train") == 2.4
    assert epochs_of(Recipe(**BASE), None) == 2


def test_status_prints_what_is_under_way_and_the_stages_that_wait(under_way, monkeypatch, capsys):
    monkeypatch.setattr(slurm, "available", lambda: True)
    monkeypatch.setattr(slurm, "queue", lambda root: JOBS)
    status.run(Experiment(under_way))
    said = capsys.readouterr().out
    assert "the loss is nan at step 7" in said
    assert "1.0 of 4" in said
    assert "1.5 h" in said
    assert "evaluate: job 8 is pending (Dependency)" in said


def test_without_slurm_the_folders_tell(under_way, monkeypatch, capsys):
    monkeypatch.setattr(slurm, "available", lambda: False)
    write(under_way, 1, "lock.1", "{}")
    status.run(Experiment(under_way))
    assert "6 ingredients: 1 done, 1 running, 2 stopped, 1 not started, 1 failed" in capsys.readouterr().out


def test_a_queue_that_cannot_be_read_is_said(under_way, monkeypatch, capsys):
    def refuse(root):
        raise ValueError("Unable to contact slurm controller")

    monkeypatch.setattr(slurm, "available", lambda: True)
    monkeypatch.setattr(slurm, "queue", refuse)
    status.run(Experiment(under_way))
    said = capsys.readouterr().out
    assert "queue cannot be read (Unable to contact slurm controller)" in said
    assert "6 ingredients: 1 done" in said


def test_without_a_draw_the_way_out_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="run `modelsoups sweep` first"):
        status.run(Experiment(load([])))
