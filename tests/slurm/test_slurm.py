"""On a real SLURM of four virtual nodes: the pipeline end to end through submit, and everything that may befall a task.

The misfortunes happen at the same time, each to a sweep of its own: they mostly wait, and the suite has minutes.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import virtual
import wandb_log
from pico import IMAGES, arguments
from ranks import train_on
from virtual import until

from modelsoups.cluster import slurm, submit
from modelsoups.cluster.scripts import CHAIN, script
from modelsoups.config.compose import load
from modelsoups.disk import manifests, paths, storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.miniature.sets import SETS
from modelsoups.stages import finetune, heads, sweep

pytestmark = pytest.mark.skipif(virtual.missing() is not None, reason=virtual.missing() or "")
SWEEP = CHAIN[2]
LONG = ["recipe.epochs=4", "recipe.batch_size=16", "finetune.checkpoint_every=5"]  # 80 steps: time to interfere
YAML = f"""
partition: main
gpus_per_node: 2
ranks_per_node: 1
cpus_per_node: 2
mem: 2G
options: ["--exclude=node1,node2", "--comment=ours"]  # where nodes are lost and jobs preempted
time: "00:20:00"
stage_time: "00:20:00"
notice: 60
setup: ["export PYTHONPATH={paths.PACKAGE.parent} OMP_NUM_THREADS=1"]
"""
ALL_GPUS = f"--gpus-per-node={virtual.GPUS}"
PATIENCE = 600  # seconds until a wait counts as vain: other work on the machine makes it no failure


@pytest.fixture(scope="module")
def cluster():
    folder = Path(tempfile.mkdtemp(prefix="slurm"))  # short: sockets lie in it
    with virtual.cluster(folder / "state") as made:
        before = dict(os.environ)
        os.environ.clear()
        os.environ.update(made.environment)
        yield made
        os.environ.clear()
        os.environ.update(before)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def begun(cluster, data, tmp_path_factory):
    """A folder as a user's, with a cluster's YAML, and in it a run with its initial models and two long recipes."""
    home = tmp_path_factory.mktemp("begun")
    (home / "conf/cluster").mkdir(parents=True)
    (home / "conf/cluster/virtual.yaml").write_text(YAML)
    before = Path.cwd()
    os.chdir(home)
    args = [*arguments(home, data), "cluster=virtual", "sweep.count=2", *LONG]
    args += ["recipe.mixup=0.5", f"results={home / 'results'}"]
    cfg = load([*args, f"runs={home / 'run'}"])
    with pytest.MonkeyPatch.context() as patch:  # no server of workers: to start it takes seconds
        patch.setattr(heads, "run_tasks", lambda job, todo, *more: [(init, job(more[-1], init)) for init in todo])
        heads.run(Experiment(cfg))
    sweep.run(Experiment(cfg))
    yield SimpleNamespace(home=home, args=args, run=home / "run")
    os.chdir(before)


@pytest.fixture(scope="module")
def pipeline(begun, data):
    """The whole chain under way: it takes longest, so it begins first."""
    command = [sys.executable, "-m", "modelsoups", "submit", *arguments(begun.home, data), "cluster=virtual"]
    command += ["name=pipeline", "runs=runs/pipeline", "results=results/pipeline", "sweep.count=2"]
    shutil.copytree(begun.run / "init", "runs/pipeline/init")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 ingredients: 0 complete, 0 failed, 2 to train" in done.stdout
    jobs = {words[1]: words[0] for words in map(str.split, done.stdout.splitlines()) if words[0].isdigit()}
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.stdout.count("already in the queue") == 4, again.stdout
    return SimpleNamespace(command=command, jobs=jobs)


class Task:
    """A sweep of its own, as the scripts of submit run it."""

    def __init__(self, cluster, begun, name, *more):
        self.cluster, self.folder = cluster, begun.home / name
        shutil.copytree(begun.run, self.folder)
        self.cfg = load([*begun.args, f"runs={self.folder}", *more])
        self.ingredient = self.cfg.run.ingredient(0)

    def submit(self, *options, tasks=(0,)):
        path = self.cfg.run.slurm / "sweep.sbatch"
        storage.write_text(path, script(self.cfg, SWEEP, list(tasks)))
        return self.cluster("sbatch", "--parsable", *options, str(path)).strip()

    def rows(self, index=0):
        try:
            text = (self.cfg.run.ingredient(index) / "metrics.jsonl").read_text()
        except FileNotFoundError:
            return []
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [{k: v for k, v in row.items() if k != "timing"} for row in lines]

    def step(self):
        return self.rows()[-1]["step"] if self.rows() else 0

    def trained(self, steps, seconds=PATIENCE):
        """Wait until so many steps more have been done than now."""
        goal = self.step() + steps
        until(lambda: self.step() >= goal, seconds, f"step {goal} of {self.folder}", self.output)

    def restarted(self, job, times):
        until(lambda: self.restarts(job) == times, PATIENCE, f"restart {times} of {job}", self.output, every=0.5)

    def running_again(self, job, times):
        """Wait until the start after so many restarts trains."""
        until(lambda: f"start {times + 1}," in self.output(job), PATIENCE, f"start {times + 1} of {job}", self.output)
        before = (self.ingredient / "metrics.jsonl").stat().st_ino  # cut to the checkpoint: a new file
        until(lambda: self.inode() != before, PATIENCE, f"training after restart {times} of {job}", self.output)
        self.trained(2)

    def inode(self):
        return (self.ingredient / "metrics.jsonl").stat().st_ino

    def restarts(self, job):
        return int(self.cluster.field(f"{job}_0", "Restarts"))

    def output(self, job="*"):
        return "".join(p.read_text() for p in sorted(self.cfg.run.slurm.glob(f"sweep-{job}_*.out")))

    def ends(self, job, seconds=PATIENCE):
        self.cluster.await_end(job, seconds=seconds)
        return self.cluster.state_of(f"{job}_0")

    def weights(self, index=0):
        return (self.cfg.run.ingredient(index) / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(cluster, begun):
    """The same two ingredients, made in this process."""
    task = Task(cluster, begun, "undisturbed")
    for task.cfg.ingredient in (0, 1):
        finetune.run(Experiment(task.cfg))
    assert [r["step"] for r in task.rows()] == list(range(1, 81))
    return task


@pytest.fixture(scope="module")
def undisturbed_ranks(cluster, begun, pipeline):
    """The first ingredient, made by four processes."""
    task = Task(cluster, begun, "undisturbed_ranks", "ingredient=0")
    assert train_on(task.cfg, 4) == [0] * 4
    return task


def stopped_and_preempted(task, cluster):
    """The signal before the time limit, then a job of a higher partition on the same node."""
    job = task.submit("-w", "node1", "-x", "node2", ALL_GPUS)
    task.trained(8)
    cluster("scancel", "--batch", "--signal=USR1", f"{job}_0")  # as --signal=B:USR1@60 has it sent
    task.running_again(job, 1)
    saved = "stopped on request, saved a checkpoint at step" in task.output(job)
    options = ("-p", "high", "-w", "node1", ALL_GPUS, "--output=/dev/null", "--wrap=sleep 1")
    high = cluster("sbatch", "--parsable", *options).strip()
    task.restarted(job, 2)
    cluster.await_end(high, seconds=PATIENCE)
    return SimpleNamespace(task=task, job=job, saved=saved, high=cluster.state_of(high), state=task.ends(job))


def requeued_and_its_node_lost(task, cluster):
    """scontrol requeue, then the node set down."""
    job = task.submit("--export=NONE", "-x", "node1,node3")  # node2, and later node4
    task.trained(8)
    cluster("scontrol", "requeue", f"{job}_0")
    task.running_again(job, 1)
    node = cluster.field(f"{job}_0", "NodeList")
    cluster("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    task.running_again(job, 2)
    elsewhere = cluster.field(f"{job}_0", "NodeList")
    cluster("scontrol", "update", f"nodename={node}", "state=resume")
    return SimpleNamespace(task=task, job=job, nodes=(node, elsewhere), state=task.ends(job))


def holder(task):
    (lock,) = task.ingredient.glob("lock.*")
    return json.loads(lock.read_text())["pid"]


def cancelled_and_submitted_again(task, cluster):
    """scancel, the same array again, once more beside it, and again when all is finished."""
    first = task.submit()
    task.trained(8)
    cluster("scancel", first)
    cancelled = task.ends(first)
    time.sleep(4)  # longer than a requeued job waits
    still = task.ends(first)
    kept = sorted(p.name for p in task.ingredient.iterdir() if p.name.startswith(("checkpoint.p", "lock")))
    second = task.submit("-w", "node3")
    task.running_again(second, 0)
    paused = holder(task)
    os.kill(paused, signal.SIGSTOP)  # it must not be through when the other comes
    third = task.submit("-w", "node4")
    beside = task.ends(third)
    os.kill(paused, signal.SIGCONT)
    two = (task.ends(second), beside)
    files = {p: p.stat().st_mtime_ns for p in task.ingredient.iterdir()}
    fourth = task.submit(tasks=(0, 1))  # half of it is done
    again = task.ends(fourth)
    after = {p: p.stat().st_mtime_ns for p in task.ingredient.iterdir()}
    return SimpleNamespace(
        task=task, first=cancelled, restarts=task.restarts(first), still=still, kept=kept, second=second, third=third,
        two=two, fourth=fourth, again=again, files=files, files_after=after,
    )  # fmt: skip


def on_two_nodes_of_two_ranks(task, cluster):
    """Four ranks over two nodes, the last of them killed on the way."""
    job = task.submit()
    task.trained(8)
    environments = {pid: virtual.environ(pid).split(b"\0") for pid in virtual.processes("python")}
    runs_here = f"SLURM_JOB_ID={cluster.field(f'{job}_0', 'JobId')}".encode()
    ranks = {pid for pid, words in environments.items() if runs_here in words and b"RANK=3" in words}
    for pid in ranks:
        os.kill(pid, signal.SIGKILL)
    task.running_again(job, 1)
    return SimpleNamespace(task=task, job=job, killed=len(ranks), state=task.ends(job))


@pytest.fixture(scope="module")
def scenes(cluster, begun, undisturbed_ranks):
    """Every scenario, under way at once; a test takes the end of its own."""  # and forks come before threads
    acts = {
        "stopped": (stopped_and_preempted, ["wandb=offline"]),
        "lost": (requeued_and_its_node_lost, ["wandb=disabled"]),  # a variable of the environment is not there
        "cancelled": (cancelled_and_submitted_again, []),
        "ranks": (on_two_nodes_of_two_ranks, ["cluster.nodes=2", "cluster.ranks_per_node=2"]),
    }
    tasks = {name: Task(cluster, begun, name, *more) for name, (_, more) in acts.items()}
    with ThreadPoolExecutor(len(acts)) as pool:
        yield {name: pool.submit(act, tasks[name], cluster) for name, (act, _) in acts.items()}


def same(task, undisturbed, index=0):
    """Whether an ingredient is, to the bit, what it is undisturbed; metrics without gaps or doubles; nothing else."""
    assert task.weights(index) == undisturbed.weights(index)
    assert task.rows(index) == undisturbed.rows(index)
    names = ["manifest.json", "metrics.jsonl", "model.safetensors", "recipe.json"]
    return sorted(p.name for p in task.cfg.run.ingredient(index).iterdir()) == names


def test_submit_runs_the_whole_pipeline_in_order(cluster, begun, pipeline, scenes, undisturbed):
    jobs = pipeline.jobs
    assert list(jobs) == ["sweep", "evaluate", "soup", "report"]
    cluster.await_end(*jobs.values(), seconds=PATIENCE)
    tasks = [f"{jobs['sweep']}_{i}" for i in range(2)]
    chain = [*tasks, jobs["evaluate"], jobs["soup"], jobs["report"]]
    outputs = "".join(p.read_text() for p in sorted(Path("runs/pipeline/slurm").glob("*.out")))
    assert [cluster.state_of(j) for j in chain] == ["COMPLETED"] * 5, outputs
    times = {j: [datetime.fromisoformat(cluster.field(j, k)) for k in ("StartTime", "EndTime")] for j in chain}
    for before, after in [*((t, jobs["evaluate"]) for t in tasks), *itertools.pairwise(chain[2:])]:
        assert times[before][1] <= times[after][0], (before, after)
    assert (begun.home / "results/pipeline/index.html").exists()
    assert (begun.home / "results/pipeline/table_3.md").exists()
    results = storage.read_jsonl(begun.home / "results/pipeline/results.jsonl")
    counts = {r["dataset"]: r["n"] for r in results if "n" in r}
    assert counts == {name: IMAGES.get(name, 96) for name in SETS if name != "train"}
    done = subprocess.run(pipeline.command, capture_output=True, text=True)
    assert "everything is complete" in done.stdout
    assert slurm.queue(Path("runs/pipeline/slurm")) == []


def test_a_soft_stop_and_a_preemption_leave_no_trace(scenes, undisturbed):
    end = scenes["stopped"].result()
    assert end.saved
    assert (end.high, end.state, end.task.restarts(end.job)) == ("COMPLETED", "COMPLETED", 2)
    assert same(end.task, undisturbed)
    assert not list(end.task.cfg.run.slurm.glob("[0-9]*.s*"))  # requests to stop, marks of progress


def test_w_and_b_of_a_stopped_and_preempted_task_has_every_step_in_one_run(scenes):
    run = scenes["stopped"].result().task.cfg.run
    files = sorted(run.wandb.glob("wandb/offline-run-*/*.wandb"))
    assert len({path.name for path in files}) == 1  # one id
    logged = {(row["_step"], row["loss"]) for path in files for row in wandb_log.history(path)}
    ours = storage.read_jsonl(run.ingredient(0) / "metrics.jsonl")
    assert logged == {(row["step"], row["loss"]) for row in ours}


def test_a_requeue_and_a_lost_node_leave_no_trace(scenes, undisturbed):
    end = scenes["lost"].result()
    assert end.nodes == ("node2", "node4")
    assert (end.state, end.task.restarts(end.job)) == ("COMPLETED", 2)
    assert same(end.task, undisturbed)


def test_a_cancelled_task_stays_cancelled_and_the_array_may_be_submitted_at_any_time(scenes, undisturbed):
    end = scenes["cancelled"].result()
    assert (end.first, end.still, end.restarts) == ("CANCELLED", "CANCELLED", 0)
    assert end.kept == ["checkpoint.prev.pt", "checkpoint.pt"]
    assert end.two == ("COMPLETED", "FAILED")
    assert f"ingredients/000 is in use: job {end.second}_0, process " in end.task.output(end.third)
    assert end.again == "COMPLETED"
    assert "1 of 1 ingredients are done already" in end.task.output(end.fourth)
    assert end.files_after == end.files  # no finished work is redone
    assert same(end.task, undisturbed)
    assert same(end.task, undisturbed, index=1)


def test_two_nodes_of_two_ranks_train_as_one_process_does_and_a_killed_rank_leaves_no_trace(
    scenes, undisturbed, undisturbed_ranks
):
    end = scenes["ranks"].result()
    assert end.killed == 1
    assert (end.state, end.task.restarts(end.job)) == ("COMPLETED", 1)
    assert "after a new checkpoint: continuing from there" in end.task.output(end.job)
    assert same(end.task, undisturbed_ranks)
    rows, others = end.task.rows(), undisturbed.rows()
    assert [r["step"] for r in rows] == [r["step"] for r in others]
    assert max(abs(a["loss"] - b["loss"]) for a, b in zip(rows, others, strict=True)) < 1e-5
    assert manifests.manifest_of(end.task.ingredient)["layouts"] == ["4x1"]


def test_an_unknown_partition_is_named_with_the_ones_there_are_and_nothing_is_left_in_the_queue(cluster, begun):
    cfg = load([*begun.args, f"runs={begun.home / 'wrong'}", "cluster.partition=nope"])
    with pytest.raises(ValueError, match=r"(?i)invalid partition.*set cluster\.partition to one of: high, main"):
        submit.run(Experiment(cfg))
    assert slurm.queue(cfg.run.slurm) == []
    assert not cfg.run.draw.exists()  # another submit may draw other recipes
    assert slurm.max_array_size() == 1001
    assert torch.get_num_threads() == 1


def test_a_multirun_goes_through_submitit(cluster, begun, scenes):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    command = [sys.executable, "-m", "modelsoups", "sweep", "-m", "name=a,b", "sweep.count=2", "cluster=virtual"]
    command += ["hydra/launcher=slurm", "hydra.launcher.gpus_per_node=2", "hydra.launcher.mem_gb=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert Path("runs/a/draw.jsonl").read_bytes() == Path("runs/b/draw.jsonl").read_bytes()
    (submitted,) = Path("runs").glob("*/slurm/multirun/*/*submission.sh")
    assert f"export PYTHONPATH={paths.PACKAGE.parent}" in submitted.read_text()  # cluster.setup
    failing = [{"sweep": "soup", "name=a,b": "name=c,d"}.get(word, word) for word in command]  # they have no draw
    done = subprocess.run(failing, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert "modelsoups: error: the job name=c " in done.stderr  # at once, though SLURM keeps no accounting here
