"""The batch scripts, run by bash with commands that stand for SLURM's: when they requeue, and what they say."""

import os
import subprocess

import pytest

from modelsoups.cluster.scripts import CHAIN, script
from modelsoups.config.compose import load

LOG = 'echo "$(basename "$0") $*" >> "$CALLS"'


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs the script of a piece, with shell lines for srun, scontrol and the jobs' Python."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()

    def run(piece, srun="exit 0", scontrol="exit 0", python="exit 0", more=()):
        for name, text in {"srun": srun, "scontrol": scontrol, "python": python, "sleep": "exit 0"}.items():
            path = tmp_path / "bin" / name
            path.write_text(f"#!/bin/bash\n{LOG if name != 'sleep' else ''}\n{text}\n")
            path.chmod(0o755)
        config = load(["name=x", "data.dir=data", f"cluster.python={tmp_path / 'bin/python'}", *more])
        config.run.slurm.mkdir(parents=True, exist_ok=True)
        path = tmp_path / "job.sbatch"
        path.write_text(script(config, piece, [0]))
        ids = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0", "SLURM_JOB_NUM_NODES": "1"}
        calls = tmp_path / "calls"
        calls.write_text("")
        path_there = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        environment = {"PATH": path_there, "CALLS": str(calls), "SLURM_JOB_NODELIST": "node1", **ids}
        done = subprocess.run(["bash", str(path)], capture_output=True, text=True, env=environment, timeout=60)
        return done, calls.read_text()

    return run


SWEEP, EVALUATE = CHAIN[2:4]
STOPPED = 'touch "$MODELSOUPS_STOP" "$MODELSOUPS_SAVED"; exit'


def test_a_finished_task_ends_well_and_leaves_no_marks(run, tmp_path):
    done, calls = run(SWEEP, srun='touch "$MODELSOUPS_STOP"; exit 0')
    assert (done.returncode, "requeue" in calls) == (0, False)
    assert "srun --export=ALL" in calls  # --export=NONE of the user would leave it without PATH
    assert not list((tmp_path / "runs/x/slurm").iterdir())


@pytest.mark.parametrize("status", [75, 0])  # 0: under torchrun, which would report any other as a failure
def test_a_task_that_stopped_on_request_is_requeued_and_asks_again_if_slurm_is_away(run, tmp_path, status):
    away = '[[ $(grep -c requeue "$CALLS") -gt 3 ]] || { echo "Unable to contact slurm controller" >&2; exit 1; }'
    done, calls = run(SWEEP, srun=f"{STOPPED} {status}", scontrol=away)
    assert calls.count("scontrol requeue 7_0") == 4
    assert done.returncode == 75


@pytest.mark.parametrize(
    "job", ["Restarts=1 JobState=PENDING", "Restarts=0 JobState=PENDING", "Restarts=1 JobState=RUNNING"]
)
def test_a_start_on_a_lost_node_does_not_requeue_the_next_one(run, job):
    """SLURM has requeued the task itself, while this start noticed that its processes were gone."""
    done, calls = run(SWEEP, srun='touch "$MODELSOUPS_SAVED"; exit 1', scontrol=f'echo "JobId=7 {job}"')
    assert "scontrol requeue" not in calls
    assert done.returncode == 1
    done, calls = run(SWEEP, srun='touch "$MODELSOUPS_SAVED"; exit 1', scontrol='echo "Restarts=0 JobState=RUNNING"')
    assert calls.count("scontrol requeue 7_0") == 1


@pytest.mark.parametrize("lines", ['touch "$MODELSOUPS_STOP"; exit 1', "exit 127"])
def test_a_task_without_a_new_checkpoint_is_not_requeued(run, lines):
    done, calls = run(SWEEP, srun=lines)
    assert "requeue" not in calls
    assert done.returncode == int(lines.split()[-1])


def test_a_task_that_crashed_after_a_checkpoint_is_requeued(run):
    done, calls = run(SWEEP, srun='touch "$MODELSOUPS_SAVED"; exit 9')
    assert "scontrol requeue 7_0" in calls
    assert "failed with status 9 after a new checkpoint: continuing from there" in done.stderr


def test_a_failing_line_of_setup_ends_the_job_with_its_text(run):
    more = ["cluster.setup=['true','if false; then echo no','fi','ls /nope','echo not here']"]
    for piece in (SWEEP, EVALUATE):
        done, calls = run(piece, more=more)
        assert (done.returncode, calls) == (1, "")
        assert "cluster.setup failed: ls /nope" in done.stderr


def test_a_stage_at_its_time_limit_is_requeued_if_it_has_made_something(run, tmp_path):
    done, calls = run(EVALUATE)
    assert (done.returncode, calls.count("python -m modelsoups evaluate name=x")) == (0, 1)
    assert done.stdout.endswith("evaluate: complete\n")
    signal = "kill -USR1 $PPID; exec /bin/sleep 1"
    done, calls = run(EVALUATE, python=signal)
    assert "requeue" not in calls
    assert "no new result since the start of job 7: it needs a longer cluster.stage_time" in done.stderr
    done, calls = run(EVALUATE, python=f"mkdir -p runs/x/logits; touch runs/x/logits/a; {signal}")
    assert "scontrol requeue 7\n" in calls
    done, calls = run(EVALUATE, python="exit 3")
    assert done.returncode == 3
    assert ": complete" not in done.stdout


def test_a_stage_that_slurm_stops_ends_its_python_too(run):
    python = "trap 'echo ended >> \"$CALLS\"; exit 5' TERM; kill -TERM $PPID; for _ in {1..50}; do /bin/sleep 0.1; done"
    done, calls = run(EVALUATE, python=python)
    assert done.returncode == 5
    assert calls.endswith("ended\n")
