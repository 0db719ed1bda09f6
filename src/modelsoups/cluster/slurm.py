"""Calls of squeue, sbatch, scancel, sinfo and scontrol; sacct and root rights are not needed."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """A queued SLURM job, or one task of a job array; state: PENDING, RUNNING, COMPLETING, ..."""

    id: int  # for a task of an array, the array's id
    index: int | None  # of a task in its array; None for other jobs
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
    """Return a command's output; ValueError if it fails, times out or is not installed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        raise ValueError(
            f"{command[0]} is not on PATH: this machine cannot submit to SLURM; use a login node "
            "of the cluster, print the scripts with submit.dry_run=true, or run the stages on this "
            "machine"
        ) from None
    except subprocess.TimeoutExpired:
        way_out = "try again later"
        raise ValueError(f"{command[0]} gave no answer within two minutes; {way_out}") from None
    if done.returncode:
        message = done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}"
        raise ValueError("; ".join(map(str.strip, message.splitlines())))
    return done.stdout


def queue(root: Path) -> list[Job]:
    """Return the user's queued jobs of the run folder `root`; each array task counts as one."""
    jobs = []
    for line in _call(["squeue", "--me", "-r", "-h", "-o", "%F|%K|%j|%T|%N|%r|%k"]).splitlines():
        number, index, name, state, nodes, reason, comment = line.split("|", 6)
        if comment == str(root.resolve()):
            position = int(index) if index.isdigit() else None
            jobs.append(Job(int(number), position, name.rpartition(".")[2], state, nodes, reason))
    return jobs


def submit(script: Path, dependencies: list[str]) -> int:
    """Submit a script and return the job id; raise ValueError with sbatch's message if it fails."""
    after = dependency_options(dependencies)
    try:
        return int(_call(["sbatch", "--parsable", *after, str(script)]).split(";")[0])
    except ValueError as error:
        hint = ""
        if "partition" in str(error).lower():
            partitions = sorted(set(_call(["sinfo", "-h", "-o", "%R"]).split()))
            hint = f"; set cluster.partition to one of: {', '.join(partitions)}"
        raise ValueError(f"{error} ({script}){hint}") from error


def dependency_options(dependencies: list[str]) -> list[str]:
    if not dependencies:
        return []
    return [f"--dependency={','.join(dependencies)}", "--kill-on-invalid-dep=yes"]


def cancel(ids: list[int]) -> None:
    if ids:
        _call(["scancel", *map(str, ids)])


def max_array_size() -> int:
    """Return SLURM's MaxArraySize; the task numbers of a job array must be below it."""
    config = _call(["scontrol", "show", "config"])
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
    return int(found[1]) if found else 1001


def ranges(numbers: list[int]) -> str:
    """Return numbers in sbatch's notation for job arrays: [0, 1, 2, 5] gives "0-2,5"."""
    parts: list[list[int]] = []
    for n in sorted(numbers):
        if parts and n == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], n]
        else:
            parts.append([n])
    return ",".join("-".join(map(str, p)) for p in parts)
