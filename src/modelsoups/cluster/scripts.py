"""The sbatch scripts of an experiment, filled in from the templates slurm/*.sbatch.

Jobs: prepare -> sweep (a job array with one task per model) -> evaluate -> soup -> report

A sweep larger than the cluster's MaxArraySize is several arrays; task t of one fine-tunes model offset + t.
"""

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from modelsoups.cluster import slurm
from modelsoups.config.schema import ClusterConfig, Config
from modelsoups.disk.paths import Run, shipped


@dataclass(frozen=True)
class Piece:
    """One SLURM job of the pipeline; `after`: the next job's dependency type, such as afterok."""

    name: str
    stages: tuple[str, ...]
    title: str
    after: str = "afterok"
    offset: int = 0  # of a sweep's array

    @property
    def stem(self) -> str:
        """Return the beginning of the names of the job's files: its script and its outputs."""
        return f"{self.name}-{self.offset}" if self.offset else self.name


CHAIN = (
    Piece("prepare", ("prepare", "heads"), "prepare the data sets and the initial model"),
    Piece("sweep", ("finetune",), "fine-tune the models", "afterany"),  # some ingredients may fail
    Piece("evaluate", ("evaluate",), "compute the logits of every finished model"),
    Piece("soup", ("soup",), "choose and evaluate the soups"),
    Piece("report", ("report",), "write the tables, figures and report page"),
)


def script(config: Config, piece: Piece, indices: list[int]) -> str:
    """Return the sbatch script of one job; `indices`: the models that a sweep's tasks fine-tune."""
    cluster = config.cluster
    python = [*shlex.split(cluster.prefix), cluster.python or sys.executable]
    overrides = [o for o in config.overrides if not re.match(r"\+?(submit\.|ingredient=)", o)]
    array = slurm.ranges([index - piece.offset for index in indices]) if piece.name == "sweep" else None
    options = _options(config.name, config.run, cluster, piece, array)
    lines = {
        "options": "\n".join(f"#SBATCH {option}" for option in options),
        "setup": "\n".join(cluster.setup),
        "python": f"python=({shlex.join(python)})",
        "overrides": f"overrides=({shlex.join(overrides)})",
        "stages": f"stages=({shlex.join(piece.stages)})",
        "run": f"run={shlex.quote(str(config.run.root.resolve()))}",
        "ranks": f"ranks={cluster.ranks}",
        "offset": f"offset={piece.offset}",
        "data": f"data={shlex.quote(str(Path(config.data.dir).resolve()))}",
    }
    template = shipped("slurm") / ("sweep.sbatch" if array else "stage.sbatch")
    text = template.read_text(encoding="utf-8").splitlines()
    made = [lines[line.rpartition("#@")[2]] if "#@" in line else line for line in text]
    return "\n".join(filter(None, made)) + "\n"


def _options(name: str, run: Run, cluster: ClusterConfig, piece: Piece, array: str | None) -> list[str]:
    """Return the #SBATCH options of a job; `array`: the sweep's task numbers, such as 0-2,5."""
    throttle = f"%{cluster.concurrent}" if cluster.concurrent else ""
    output = run.slurm.resolve() / f"{piece.stem}-{'%A_%a' if array else '%j'}.out"
    options: dict[str, str | int | None] = {
        "job-name": f"{name}.{piece.name}",
        "comment": str(run.root.resolve()),  # for people: status and submit go by the script's path
        "chdir": str(Path.cwd()),
        "output": str(output),
        "open-mode": "append",
        "array": array + throttle if array else None,
        "nodes": cluster.nodes if array else 1,
        "ntasks-per-node": 1,
        "cpus-per-task": cluster.cpus_per_node,
        "gpus-per-node": cluster.gpus_per_node or None,
        "mem": cluster.mem,
        "time": cluster.time if array else cluster.stage_time,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "signal": f"B:USR1@{cluster.notice}" if cluster.notice else None,
    }
    given = {key: shlex.quote(str(value)) for key, value in options.items() if value is not None}
    return [*(f"--{key}={value}" for key, value in given.items()), "--requeue", *cluster.options]
