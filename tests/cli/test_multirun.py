"""What `finetune -m ... hydra/launcher=slurm` submits, for every experiment; `sbatch` is a stand-in that refuses."""

import os
import re
import sys

import pytest

from modelsoups.cli import hydra_flags
from modelsoups.disk import paths

pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
from submitit.core.utils import DelayedSubmission

EXPERIMENTS = sorted(path.stem for path in (paths.shipped("conf") / "experiment").glob("*.yaml"))


@pytest.fixture
def submitted(tmp_path, monkeypatch):
    """A function that gives a multirun of finetune to submitit; returns the script and the jobs' overrides."""
    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text("#!/bin/sh\necho refused >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["modelsoups"])

    def submitted(*more):
        overrides = ["name=x", "ingredient=0,1", "hydra/launcher=slurm", *more]
        with pytest.raises(SystemExit, match="1"):
            hydra_flags.run_with_flags({"finetune": "modelsoups.stages.finetune"}, ["-m", *overrides])
        (script,) = home.glob("runs/x/slurm/multirun/.submission_file_*.sh")
        jobs = map(DelayedSubmission.load, sorted(script.parent.glob("*.pkl")))
        return script.read_text(), sorted(job.args[0] for job in jobs)

    return submitted


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_multirun_of_every_experiment_is_an_array_with_a_gpu_for_each_job(submitted, capsys, experiment):
    text, jobs = submitted(f"experiment={experiment}", "cluster.partition=gpu", "cluster.setup=[module load cuda]")
    assert capsys.readouterr().err.splitlines()[-1] == "modelsoups: error: FailedJobError: refused"
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)", text, re.MULTILINE))
    wanted = {"array": "0-1%2", "job-name": "x.multirun", "partition": "gpu", "nodes": "1", "gpus-per-node": "1"}
    assert wanted.items() <= options.items()
    assert "\nexport PYTHONSAFEPATH=1\nmodule load cuda\n" in text
    assert [{f"experiment={experiment}", "name=x", f"ingredient={i}"} <= set(job) for i, job in enumerate(jobs)] == [
        True,
        True,
    ]


def test_on_a_cluster_without_gpus_a_job_asks_for_none_and_trains_on_all_cores(submitted):
    text, jobs = submitted("cluster.gpus_per_node=0", "cluster.cpus_per_node=6")
    assert "gpus-per-node" not in text
    assert "#SBATCH --cpus-per-task=6\n" in text
    assert all("finetune.threads=6" in job for job in jobs)
