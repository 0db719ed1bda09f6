"""What SLURM's commands get of the environment: nothing of an enclosing job."""

import os

import pytest

from modelsoups.cluster import environment, slurm
from modelsoups.config.schema import ClusterConfig

JOB = {
    "SLURM_JOB_ID": "77",
    "SLURM_MEM_PER_CPU": "4000",
    "SLURM_CPU_BIND": "quiet,mask_cpu:0x3",
    "SRUN_CPUS_PER_TASK": "2",
    "SBATCH_PARTITION": "debug",
    "RANK": "1",
    "MODELSOUPS_STOP": "/run/slurm/77.stop",
}
KEPT = {"PATH": "/bin", "SLURM_CONF": "/etc/slurm.conf", "WANDB_MODE": "offline"}


def test_within_a_job_no_variable_of_it_is_handed_on_and_that_is_said():
    assert environment.handed_on(JOB | KEPT) == KEPT
    (note,) = environment.notes(JOB | KEPT, ClusterConfig())
    assert note == "submit runs within job 77; the new jobs do not get its SLURM_* and SBATCH_* variables"


def test_variables_of_the_user_that_override_keys_are_named_and_those_that_submit_sets_dropped():
    own = {"SBATCH_PARTITION": "debug", "SBATCH_QOS": "low", "SBATCH_CONSTRAINT": "a100", "SBATCH_COMMENT": "mine"}
    cluster = ClusterConfig(partition="gpu", qos="low", options=["--constraint=h100"])
    assert environment.handed_on(own | KEPT) == KEPT | {k: v for k, v in own.items() if k != "SBATCH_COMMENT"}
    assert environment.notes(own | KEPT, cluster) == [
        "SBATCH_CONSTRAINT=a100 of the environment overrides --constraint in cluster.options",
        "SBATCH_PARTITION=debug of the environment overrides cluster.partition=gpu",
    ]
    assert environment.notes({"SBATCH_TIMELIMIT": "60"}, ClusterConfig()) == [
        "SBATCH_TIMELIMIT=60 of the environment overrides cluster.time=24:00:00"
    ]


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """A function that makes a command of SLURM's from a line of shell; the last one is found first."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def make(name, text):
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    return make


def test_sbatch_sees_nothing_of_the_enclosing_job(commands, tmp_path, monkeypatch):
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    commands("sbatch", f"env > {tmp_path / 'seen'}; echo '12;cluster'")
    assert slurm.submit(tmp_path / "soup.sbatch", []) == 12
    assert not [x for x in (tmp_path / "seen").read_text().splitlines() if x.startswith(("SLURM", "SBATCH", "SRUN_"))]


def test_jobs_are_told_by_the_path_of_their_script(commands, tmp_path):
    lines = [
        f"7|3|PENDING||Priority|{tmp_path}/sweep.sbatch",
        f"8|1|RUNNING|node[1-2]|None|{tmp_path}/sweep-1001.sbatch",
        f"9|N/A|PENDING||Dependency|{tmp_path}/soup.sbatch",
        "10|N/A|RUNNING|node1|None|/other/soup.sbatch",
        "11|N/A|RUNNING|node1|None|(null)",
        "CLUSTER: west",
    ]
    (tmp_path / "lines").write_text("\n".join(lines))
    commands("squeue", f"cat {tmp_path / 'lines'}")
    jobs = slurm.queue(tmp_path)
    assert jobs == [
        slurm.Job(7, 3, "sweep", "PENDING", "", "Priority"),
        slurm.Job(8, 1002, "sweep", "RUNNING", "node[1-2]", "None", 1001),
        slurm.Job(9, None, "soup", "PENDING", "", "Dependency"),
    ]
    assert [job.label for job in jobs] == ["7_3", "8_1", "9"]


def test_jobs_that_are_ending_are_waited_for(monkeypatch, capsys, tmp_path):
    ending = slurm.Job(7, 0, "sweep", "COMPLETING", "node1", "None")
    answers = [[ending], [ending], []]
    monkeypatch.setattr(slurm, "queue", lambda folder: answers.pop(0))
    monkeypatch.setattr(slurm.time, "sleep", lambda seconds: None)
    assert slurm.settled_queue(tmp_path) == []
    assert capsys.readouterr().out == "submit: waiting for jobs that are ending: 7_0\n"
    monkeypatch.setattr(slurm, "queue", lambda folder: [ending])
    monkeypatch.setattr(slurm, "ENDING", -1.0)
    with pytest.raises(ValueError, match=r"jobs of this run have been ending for two minutes \(7_0\); see `squeue`"):
        slurm.settled_queue(tmp_path)
