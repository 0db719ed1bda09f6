"""The sbatch scripts of an experiment, filled in from the templates slurm/*.sbatch.

Jobs: prepare -> heads -> sweep (a job array with one task per model) -> evaluate -> soup -> report, or
with pool=none prepare -> heads -> analyse. Those that run no model ask for no GPU.

Every value is one word of one line, for sbatch and for bash; a value that cannot be is refused.
Only the lines of cluster.setup are commands.

A sweep larger than the cluster's MaxArraySize is several arrays; task t of one fine-tunes model offset + t.
"""

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelsoups.cluster import slurm
from modelsoups.config.schema import ClusterConfig, Config
from modelsoups.disk.paths import Run, shipped


@dataclass(frozen=True)
class Piece:
    """One SLURM job of the pipeline; `after`: the next job's dependency type, such as afterok.

    models: whether it trains or evaluates models, and so needs GPUs.
    """

    name: str
    stages: tuple[str, ...]
    title: str
    after: str = "afterok"
    models: bool = True
    offset: int = 0  # of a sweep's array

    @property
    def stem(self) -> str:
        """Return the beginning of the names of the job's files: its script and its outputs."""
        return f"{self.name}-{self.offset}" if self.offset else self.name


CHAIN = (
    Piece("prepare", ("prepare",), "prepare the data sets", models=False),
    Piece("heads", ("heads",), "make the initial models"),
    Piece("sweep", ("finetune",), "fine-tune the models", "afterany"),  # some ingredients may fail
    Piece("evaluate", ("evaluate",), "compute the logits of every finished model"),
    Piece("soup", ("soup",), "choose and evaluate the soups"),
    Piece("report", ("report",), "write the tables, figures and report page", models=False),
)

OF_POOLS = (  # of a run without models of its own (pool=none)
    *CHAIN[:2],
    Piece("analyse", ("analyse",), "fine-tune the models of analyse.pools and make the analyses"),
)


def script(config: Config, piece: Piece, indices: list[int]) -> str:
    """Return the sbatch script of one job; `indices`: the models that a sweep's tasks fine-tune.

    Raises ValueError, with the key, for a value that does not fit in one line.
    """
    cluster = config.cluster
    python = [*_words("cluster.prefix", cluster.prefix), cluster.python or sys.executable]
    overrides = [o for o in config.overrides if not re.match(r"\+?(submit\.|ingredient=)", o)]
    overrides += threads(config, piece.stages, cluster.ranks if piece.name == "sweep" else 1)
    array = slurm.ranges([index - piece.offset for index in indices]) if piece.name == "sweep" else None
    options = _options(config.name, config.run, cluster, piece, array)
    for number, line in enumerate(cluster.setup):
        _one_line(f"cluster.setup[{number}]", line.replace("\n", "").replace("\t", ""))
    lines = {
        "options": "\n".join(f"#SBATCH {option}" for option in options),
        "setup": "\n".join(cluster.setup),
        "python": f"python=({_joined('cluster.python', python)})",
        "overrides": f"overrides=({_joined('override', overrides)})",
        "stages": f"stages=({shlex.join(piece.stages)})",
        "run": f"run={_joined('runs', [str(config.run.root.resolve())])}",
        "ranks": f"ranks={cluster.ranks}",
        "offset": f"offset={piece.offset}",
        "data": f"data={_joined('data.dir', [str(Path(config.data.dir).resolve())])}",
    }
    template = shipped("slurm") / ("sweep.sbatch" if array else "stage.sbatch")
    text = template.read_text(encoding="utf-8").splitlines()
    made = [lines[line.rpartition("#@")[2]] if "#@" in line else line for line in text]
    return "\n".join(filter(None, made)) + "\n"


def threads(config: Config, stages: Sequence[str], ranks: int) -> list[str]:
    """Return the override by which `ranks` processes without GPUs train on all cores; [] if a user chose threads."""
    cluster, key = config.cluster, "finetune.threads"
    given = config.finetune.threads > 1 or any(re.match(rf"\+*{key}=", o) for o in config.overrides)
    if cluster.gpus_per_node or given or not {"heads", "finetune"} & set(stages):  # others: a worker for each core
        return []
    return [f"{key}={max(1, cluster.cpus_per_node // ranks)}"]


def _options(name: str, run: Run, cluster: ClusterConfig, piece: Piece, array: str | None) -> list[str]:
    """Return the #SBATCH options of a job; `array`: the sweep's task numbers, such as 0-2,5."""
    throttle = f"%{cluster.concurrent}" if cluster.concurrent else ""
    folder = str(run.slurm.resolve()).replace("%", "%%")  # sbatch replaces %j and others
    output = f"{folder}/{piece.stem}-{'%A_%a' if array else '%j'}.out"
    options: dict[str, str | int | None] = {
        "job-name": f"{name}.{piece.name}",
        "comment": str(run.root.resolve()),  # for people: status and submit go by the script's path
        "chdir": str(Path.cwd()),
        "output": output,
        "open-mode": "append",
        "array": array + throttle if array else None,
        "nodes": cluster.nodes if array else 1,
        "ntasks-per-node": 1,
        "cpus-per-task": cluster.cpus_per_node,
        "gpus-per-node": (piece.models and cluster.gpus_per_node) or None,
        "mem": cluster.mem,
        "time": cluster.time if array else cluster.stage_time,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "signal": f"B:USR1@{cluster.notice}" if cluster.notice else None,
    }
    given = [f"--{key}={_quoted(key, str(value))}" for key, value in options.items() if value is not None]
    if piece.models or cluster.cpu_options is None:
        return [*given, "--requeue", *(_own_option("cluster.options", option) for option in cluster.options)]
    return [*given, "--requeue", *(_own_option("cluster.cpu_options", option) for option in cluster.cpu_options)]


def _own_option(key: str, option: str) -> str:
    """Return an entry of a list of options as one word; ValueError if it is several, as a shell reads it."""
    words = _words(key, option)
    if len(words) != 1:
        raise ValueError(f"{key}: {option!r} is {len(words)} words; write each option as --option='a value'")
    return _quoted(key, words[0])


def _quoted(key: str, value: str) -> str:
    """Return a value as one word of an #SBATCH line, where a backslash escapes also within quotes."""
    _one_line(key, value)
    if re.fullmatch(r"[\w@%+=:,./-]+", value, re.ASCII):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _joined(key: str, values: Sequence[str]) -> str:
    for value in values:
        _one_line(key, value)
    return shlex.join(values)


def _words(key: str, text: str) -> list[str]:
    """Return the words of a text, as a shell reads them; ValueError if a quotation mark is not closed."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{key}: {text!r} is not a list of words ({error}); close its quotation marks") from error


def _one_line(key: str, value: str) -> None:
    """Raise ValueError if a value has line ends or other characters that a script cannot have."""
    if not value.isprintable():
        way_out = "a script for SLURM needs printable text without line breaks; choose another value or folder"
        raise ValueError(f"{key}: {value!a} cannot be in a script; {way_out}")
