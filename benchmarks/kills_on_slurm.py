"""A sweep on a virtual SLURM that loses two nodes and its controller ends with the bytes of an undisturbed sweep.

    python benchmarks/kills_on_slurm.py

Needs what tests/slurm needs (root, slurmctld, slurmd, munge). Two array tasks train, each on a node of its own. Both
nodes are set down, so both tasks start again on the two others; then the controller is killed with -9 and started
again while they train. Compared are the weights and the metrics but for the clock. Exits with 1 if any differs.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/slurm"))

import virtual
from kills import content
from pico import arguments, make_data

from modelsoups.cluster.scripts import CHAIN, script
from modelsoups.config.compose import load
from modelsoups.config.schema import Config
from modelsoups.disk import paths, provenance, storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.stages import finetune, heads, sweep

TASKS = (0, 1)
YAML = f"""
partition: main
gpus_per_node: {virtual.GPUS}
ranks_per_node: 1
cpus_per_node: 2
mem: 2G
time: "00:20:00"
setup: ["export PYTHONPATH={paths.PACKAGE.parent} OMP_NUM_THREADS=1"]
"""
LONG = ["sweep.count=2", "recipe.epochs=4", "recipe.batch_size=16", "finetune.checkpoint_every=5"]
PATIENCE = 600


def steps(cfg: Config, index: int) -> int:
    """Training steps whose metrics are written; 0 before the first."""
    path = cfg.run.ingredient(index) / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def trained(cfg: Config, count: int, start: int, job: str) -> None:
    """Wait until each task trains after so many starts, and has done `count` steps more than when it began."""

    def under_way(index: int) -> bool:
        output = cfg.run.slurm / f"sweep-{job}_{index}.out"
        return output.exists() and f"start {start}," in output.read_text()

    virtual.until(lambda: all(map(under_way, TASKS)), PATIENCE, f"start {start} of {job}")
    before = [steps(cfg, i) for i in TASKS]
    virtual.until(lambda: all(steps(cfg, i) >= before[i] + count for i in TASKS), PATIENCE, f"{count} steps of {job}")


def lose_nodes(cluster: virtual.Cluster, job: str) -> list[str]:
    """Set down the node of each task; return their names."""
    nodes = [cluster.field(f"{job}_{i}", "NodeList") for i in TASKS]
    for node in nodes:
        cluster("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    return nodes


def restart_controller(cluster: virtual.Cluster) -> None:
    """Kill slurmctld with -9 and start it again from its saved state."""
    pid = int((cluster.state / "run/slurmctld.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    virtual.until(lambda: not Path(f"/proc/{pid}").exists(), 10, "the end of slurmctld")
    time.sleep(3)
    cluster("slurmctld")


def main() -> None:
    if why := virtual.missing():
        raise SystemExit(why)
    folder = Path(tempfile.mkdtemp(prefix="slurm"))  # short: sockets lie in it
    home = folder / "home"
    (home / "conf/cluster").mkdir(parents=True)
    (home / "conf/cluster/virtual.yaml").write_text(YAML)
    os.chdir(home)
    options = [*arguments(home, make_data(home / "data")), "cluster=virtual", *LONG, f"results={home / 'results'}"]
    with virtual.cluster(folder / "state") as cluster:
        os.environ.update(cluster.environment)
        undisturbed = load([*options, f"runs={home / 'undisturbed'}"])
        heads.run(Experiment(undisturbed))
        sweep.run(Experiment(undisturbed))
        disturbed = load([*options, f"runs={home / 'disturbed'}"])
        shutil.copytree(home / "undisturbed", home / "disturbed")
        for undisturbed.ingredient in TASKS:
            finetune.run(Experiment(undisturbed))
        path = disturbed.run.slurm / "sweep.sbatch"
        storage.write_text(path, script(disturbed, CHAIN[2], list(TASKS)))
        job = cluster("sbatch", "--parsable", str(path)).strip()
        trained(disturbed, 8, 1, job)
        lost = lose_nodes(cluster, job)
        trained(disturbed, 4, 2, job)
        at = [steps(disturbed, i) for i in TASKS]
        restart_controller(cluster)
        cluster.await_end(job, seconds=PATIENCE)
        ends = [f"{cluster.field(f'{job}_{i}', 'NodeList')} {cluster.state_of(f'{job}_{i}')}" for i in TASKS]
        starts = [1 + int(cluster.field(f"{job}_{i}", "Restarts")) for i in TASKS]
    wrong = [i for i in TASKS if content(disturbed.run.ingredient(i)) != content(undisturbed.run.ingredient(i))]
    total = steps(undisturbed, 0)
    print(
        "| task | lost node | starts | controller killed at step | ended on | same bytes |\n|---|---|---|---|---|---|"
    )
    for i in TASKS:
        print(f"| {i} | {lost[i]} | {starts[i]} | {at[i]} of {total} | {ends[i]} | {'no' if i in wrong else 'yes'} |")
    print(f"controller killed and started again once; {provenance.git_commit()}")
    shutil.rmtree(folder)
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
