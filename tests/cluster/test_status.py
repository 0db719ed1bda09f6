"""How far a sweep is, from folders made by hand."""

import json
import os
import socket
import time

import pytest
from pico import BASE

from modelsoups.cluster import slurm, status
from modelsoups.cluster.status import IngredientStatus, epochs_of, scan, summary
from modelsoups.config.compose import load
from modelsoups.disk import lock, manifests, storage
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


def test_hours_of_training_are_summed_over_ranks_and_scaled_to_what_is_left(under_way):
    states = scan(under_way.run, Experiment(under_way).draw.recipes(), JOBS)
    assert summary(states) == [
        "6 ingredients: 1 done, 1 running, 1 queued, 1 stopped, 1 not started, 1 failed",
        # 2 h x 2 + 0.5 h x 4 + 1 h + 0.5 h over 4 + 1 + 2 + 1 epochs; 3 + 3 + 4 + 4 epochs are left
        "hours of training, summed over GPUs or processes: 7.5 spent, about 13.1 left",
    ]
    rest = "0.0 spent, those left are unknown until the first ingredient writes metrics"
    assert summary(scan(under_way.run, Experiment(under_way).draw.recipes(), [])[5:])[1].endswith(rest)


def test_a_length_in_steps_is_told_in_epochs_of_the_training_set(tmp_path):
    recipe = Recipe(**{**BASE, "epochs": None}, steps=12)  # of 64 images
    with pytest.raises(ValueError, match=r"train is not prepared, so the epochs of recipe\.steps=12 are unknown$"):
        epochs_of(recipe, tmp_path / "train")
    manifests.finish(tmp_path / "train", {}, [], images=320)
    assert epochs_of(recipe, tmp_path / "train") == 2.4
    assert epochs_of(Recipe(**BASE), None) == 2


def test_status_prints_what_is_under_way_and_the_stages_that_wait(under_way, monkeypatch, capsys):
    monkeypatch.setattr(slurm, "available", lambda: True)
    monkeypatch.setattr(slurm, "queue", lambda folder: JOBS)
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
    def refuse(folder):
        raise ValueError("Unable to contact slurm controller; try again; and again")

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


def output(cfg, name, *lines):
    storage.write_text(cfg.run.slurm / name, "\n".join(lines) + "\n")


@pytest.fixture
def shown(under_way, monkeypatch, capsys):
    """A function that returns what status prints, in one line, when SLURM's queue has these jobs."""

    def shown(*jobs):
        monkeypatch.setenv("COLUMNS", "400")
        monkeypatch.setattr(slurm, "available", lambda: True)
        monkeypatch.setattr(slurm, "queue", lambda folder: list(jobs))
        status.run(Experiment(under_way))
        return " ".join(capsys.readouterr().out.split())

    return shown


def test_why_a_task_ended_is_the_telling_line_of_its_newest_output(under_way, shown):
    output(under_way, "sweep-7_5.out", "modelsoups: error: an older job")
    srun = "srun: error: node1: task 0: Exited with exit code 127"
    output(under_way, "sweep-12_5.out", "bash: line 1: /nope/python: No such file or directory", srun)
    earlier = ("modelsoups: error: of an earlier start", "date ingredient 4, start 2, on node1")
    full = "modelsoups: error: finetune: could not write a: No space left on device"
    output(under_way, "sweep-12_4.out", *earlier, full, srun)
    said = shown()
    assert "6 ingredients: 1 done, 4 stopped, 1 failed" in said
    assert "line 1: /nope/python: No such file or directory (job 12_5: " in said
    assert "could not write a: No space left on device (job 12_4: " in said
    assert "older" not in said
    assert "earlier" not in said


def test_jobs_that_will_never_start_are_named_with_the_way_out(shown):
    waits = [slurm.Job(7, i, "sweep", "PENDING", "", "PartitionTimeLimit") for i in (3, 4)]
    said = shown(*waits, slurm.Job(8, None, "soup", "PENDING", "", "JobHeldUser"))
    assert "sweep: 2 queued: PartitionTimeLimit, and will not start: set cluster.time" in said
    assert "soup: job 8 is pending (JobHeldUser, and will not start: `scontrol release` it)" in said


def test_stages_that_ended_without_a_result_are_named(under_way, shown):
    output(
        under_way,
        "evaluate-8.out",
        "evaluate: 3 of 9",
        "slurmstepd: error: *** JOB 8 ON n1 CANCELLED AT x DUE TO TIME LIMIT ***",
    )
    output(under_way, "soup.sbatch")
    said = shown()
    assert (
        "evaluate: job 8 ended without its result: slurmstepd: error: *** JOB 8 ON n1 CANCELLED AT x DUE TO TIME"
        in said
    )
    assert "soup: not in the queue, and never started; `modelsoups submit` queues it again" in said
    output(under_way, "evaluate-9.out", "2026 evaluate: complete")
    assert "evaluate:" not in shown()


def test_a_process_that_was_killed_does_not_count_as_running(under_way, shown):
    with lock.held(under_way.run.ingredient(3)):
        assert "1 running," in shown()
    here = {"host": socket.gethostname(), "place": lock.place()}
    holder = {**here, "pid": 2**22 + 1, "began": "1", "job": None, "start": 0}
    write(under_way, 3, "lock.1", holder)
    assert " running," not in shown()
    write(under_way, 3, "lock.1", holder | {"host": "elsewhere", "place": "elsewhere"})
    assert "1 running," in shown()
    for seconds in (-100, 100):  # by this machine's clock
        os.utime(under_way.run.ingredient(3) / "lock.1", (time.time() + seconds,) * 2)
        assert " running," not in shown()
