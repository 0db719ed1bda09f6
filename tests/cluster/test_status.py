"""The sweep at a glance, and what one will cost, from folders made by hand."""

import json

import pytest
from pico import SEARCH

from modelsoups.cluster import plan, slurm, status
from modelsoups.cluster.status import State, scan, summary
from modelsoups.config.compose import load
from modelsoups.disk import storage
from modelsoups.recipes.recipe import Recipe
from modelsoups.stages import sweep


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    """Five recipes of four epochs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pico.yaml").write_text(SEARCH)
    made = load(["sweep.search=pico.yaml", "recipe.epochs=4", "recipe.batch_size=10", "sweep.count=6", "name=x"])
    sweep.run(made)
    return made


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
    states = scan(under_way, JOBS)
    assert [s.state for s in states] == ["done", "running", "failed", "stopped", "queued", "not started"]
    assert states[1] == State(1, "running", 1.0, 4, 0.5, 4, 0.5, "7_1 node[1-2]")
    assert states[1].hours_left == 1.5
    assert states[2].note == "the loss is nan at step 7"
    assert states[4].note == "7_4 Priority"
    assert states[5].hours_left is None


def test_gpu_hours_are_summed_over_ranks_and_scaled_to_what_is_left(under_way):
    states = scan(under_way, JOBS)
    assert summary(states) == [
        "6 ingredients: 1 done, 1 running, 1 queued, 1 stopped, 1 not started, 1 failed",
        # 2 h x 2 + 0.5 h x 4 + 1 h + 0.5 h over 4 + 1 + 2 + 1 epochs; 3 + 3 + 4 + 4 epochs are left
        "GPU-hours: 7.5 spent on training, about 13.1 left",
    ]
    assert (
        summary(scan(under_way, [])[5:])[1] == "GPU-hours: 0.0 spent on training, what is left is known after the first"
    )


def test_status_prints_what_is_under_way_and_the_stages_that_wait(under_way, monkeypatch, capsys):
    monkeypatch.setattr(slurm, "available", lambda: True)
    monkeypatch.setattr(slurm, "queue", lambda root: JOBS)
    status.run(under_way)
    said = capsys.readouterr().out
    assert "the loss is nan at step 7" in said
    assert "1.0 of 4" in said
    assert "1.5 h" in said
    assert "evaluate: job 8 is pending (Dependency)" in said


def test_without_slurm_the_folders_tell(under_way, monkeypatch, capsys):
    monkeypatch.setattr(slurm, "available", lambda: False)
    write(under_way, 1, "lock.1", "{}")
    status.run(under_way)
    assert "6 ingredients: 1 done, 1 running, 2 stopped, 1 not started, 1 failed" in capsys.readouterr().out


def test_a_queue_that_cannot_be_read_is_said(under_way, monkeypatch, capsys):
    def refuse(root):
        raise ValueError("Unable to contact slurm controller")

    monkeypatch.setattr(slurm, "available", lambda: True)
    monkeypatch.setattr(slurm, "queue", refuse)
    status.run(under_way)
    said = capsys.readouterr().out
    assert "queue cannot be read (Unable to contact slurm controller)" in said
    assert "6 ingredients: 1 done" in said


def test_without_a_draw_the_way_out_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="run `modelsoups sweep` first"):
        status.run(load([]))


def test_the_cost_of_a_sweep_by_hand(cfg):
    values = {"lr": 1e-3, "weight_decay": 0.0, "label_smoothing": 0.0, "mixup": 0.0, "warmup_steps": 0, "clip": 1.0}
    recipes = [Recipe(**values, epochs=n, batch_size=10, seed=0, aug="minimal") for n in (2, 3)]
    made = plan.cost(cfg, recipes, train=105, weights=1000, speed=0.5)
    assert (made.ingredients, made.steps, made.images) == (2, 50, 500)  # ten steps an epoch
    assert made.gpu_hours == 500 / 0.5 / 3600
    assert (made.weights_bytes, made.passing_bytes) == (4000, 12000)


def test_the_papers_sweep_costs_what_its_epochs_say(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plan.run(load(["experiment=imagenet", "sweep.search=released_72", "plan.images_per_second=12000"]))
    said = capsys.readouterr().out
    assert "70 ingredients, 868," in said  # million images: the 72 without the initialization and a double
    assert "20.10 GPU-hours" in said


@pytest.mark.parametrize("key", ["train_images", "parameters", "images_per_second"])
def test_what_a_plan_cannot_know_yet_it_asks_for(cfg, key):
    given = {"train_images": "1000", "parameters": "1000", "images_per_second": "10"}
    known = [f"plan.{k}={v}" for k, v in given.items() if k != key]
    with pytest.raises(ValueError, match=rf"give plan\.{key}="):
        plan.run(load(["sweep.search=pico.yaml", "recipe.batch_size=10", "name=x", *known]))


def test_the_speed_is_measured_on_finished_ingredients(cfg, capsys):
    for index, seconds in enumerate((10, 20, 30)):
        write(cfg, index, "manifest.json", {"inputs": {}, "files": {}, "seconds": seconds, "images": 1200})
    write(cfg, 3, "manifest.json", {"inputs": {}, "files": {}, "seconds": 10, "images": 1200, "layouts": ["2x1"]})
    plan.run(load(["sweep.search=pico.yaml", "name=x", "plan.train_images=1000", "plan.parameters=1"]))
    assert "60 images/s a GPU (median of 4 finished ingredients)" in capsys.readouterr().out
