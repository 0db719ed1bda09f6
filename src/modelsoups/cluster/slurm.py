"""What SLURM's own commands say and do: the queue, submission, limits. Needs neither accounting (sacct) nor root."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """A job in the queue, or one task of an array. state is SLURM's word: PENDING, RUNNING, COMPLETING, ..."""

    id: int  # of the array where it is one
    index: int | None  # of the task
    name: str
    state: str
    nodes: str
    reason: str

    @property
    def label(self) -> str:
        return str(self.id) if self.index is None else f"{self.id}_{self.index}"


def available() -> bool:
    return shutil.which("sbatch") is not None


def _call(command: list[str]) -> str:
    """A command's output; ValueError with what it says when it fails, OSError when it is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        raise ValueError(
            f"{command[0]} is not on PATH: this machine cannot submit to SLURM; go to a login node of the cluster, "
            "see what would be submitted with submit.dry_run=true, or run the stages here with `modelsoups`"
        ) from None
    except subprocess.TimeoutExpired:
        raise ValueError(f"{command[0]} has not answered for two minutes; try again when SLURM is back") from None
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}"
        raise ValueError("; ".join(line.strip() for line in said.splitlines()))
    return done.stdout


def queue(root: Path) -> list[Job]:
    """Your jobs of the run folder `root` that have not ended, each task of an array apart; submit marks its jobs."""
    jobs = []
    for line in _call(["squeue", "--me", "-r", "-h", "-o", "%F|%K|%j|%T|%N|%r|%k"]).splitlines():
        number, index, name, state, nodes, reason, comment = line.split("|", 6)
        if comment == str(root.resolve()):
            position = int(index) if index.isdigit() else None
            jobs.append(Job(int(number), position, name.rpartition(".")[2], state, nodes, reason))
    return jobs


def submit(script: Path, dependencies: list[str]) -> int:
    """The id of a newly submitted job; ValueError with sbatch's words and, where it helps, the valid choices."""
    after = [f"--dependency={','.join(dependencies)}", "--kill-on-invalid-dep=yes"] if dependencies else []
    try:
        return int(_call(["sbatch", "--parsable", *after, str(script)]).split(";")[0])
    except ValueError as error:
        said = str(error)
        hint = f"; cluster.partition is one of: {', '.join(partitions())}" if "partition" in said.lower() else ""
        raise ValueError(f"{said} ({script}){hint}") from error


def cancel(ids: list[int]) -> None:
    if ids:
        _call(["scancel", *map(str, ids)])


def partitions() -> list[str]:
    return sorted(set(_call(["sinfo", "-h", "-o", "%R"]).split()))


def max_array_size() -> int:
    """Tasks of an array are numbered below this."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _call(["scontrol", "show", "config"]), re.MULTILINE)
    return int(found[1]) if found else 1001


def ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] as sbatch writes it: 0-2,5."""
    parts: list[list[int]] = []
    for n in sorted(numbers):
        if parts and n == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], n]
        else:
            parts.append([n])
    return ",".join("-".join(map(str, p)) for p in parts)
