"""Calls of squeue, sbatch, scancel, sinfo and scontrol; sacct and root rights are not needed."""

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from modelsoups.cluster.environment import handed_on

ARRAY_SIZE = 1001  # SLURM's default of MaxArraySize
ENDING = 120.0  # seconds to wait for jobs that are ending: KillWait (30 s) and the clusters' own scripts


@dataclass(frozen=True)
class Job:
    """A queued SLURM job, or one task of a job array; state: PENDING, RUNNING, COMPLETING, ..."""

    id: int  # for a task of an array, the array's id
    index: int | None  # of the ingredient that a task fine-tunes; None for other jobs
    name: str
    state: str
    nodes: str
    reason: str
    offset: int = 0  # of the array: its task 0 fine-tunes this ingredient

    @property
    def label(self) -> str:
        return str(self.id) if self.index is None else f"{self.id}_{self.index - self.offset}"


def available() -> bool:
    return shutil.which("sbatch") is not None


def _call(command: list[str]) -> str:
    """Return a command's output; ValueError if it fails, times out or is not installed."""
    try:
        environment = handed_on(os.environ)
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
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


def queue(folder: Path) -> list[Job]:
    """Return the queued jobs, of any user, whose scripts are in `folder`; each array task counts as one.

    The script tells a job: no option of sbatch changes it, unlike a job's name and comment.
    """
    jobs = []
    for line in _call(["squeue", "-r", "-h", "-o", "%F|%K|%T|%N|%r|%o"]).splitlines():
        number, index, state, nodes, reason, command = (line.split("|", 5) + [""] * 5)[:6]
        script = Path(command)
        if script.suffix == ".sbatch" and script.parent == folder.resolve():
            name, _, first = script.stem.partition("-")
            offset = int(first or 0)
            position = offset + int(index) if index.isdigit() else None
            jobs.append(Job(int(number), position, name, state, nodes, reason, offset))
    return jobs


def settled_queue(folder: Path) -> list[Job]:
    """Return the queued jobs as `queue` does, once none is ending; ValueError after two minutes.

    Of a job that is COMPLETING, squeue does not tell whether it was cancelled or will start again.
    """
    end = time.monotonic() + ENDING
    told = False
    while True:
        jobs = queue(folder)
        ending = [job for job in jobs if job.state == "COMPLETING"]
        if not ending:
            return jobs
        labels = ", ".join(job.label for job in ending[:3]) + (", ..." if len(ending) > 3 else "")
        if time.monotonic() > end:
            way_out = "see `squeue`, and run this command again when they have ended"
            raise ValueError(f"jobs of this run have been ending for two minutes ({labels}); {way_out}")
        if not told:
            print(f"submit: waiting for jobs that are ending: {labels}", flush=True)
        told = True
        time.sleep(2)


def submit(script: Path, dependencies: list[str]) -> int:
    """Submit a script and return the job id; raise ValueError with sbatch's message if it fails."""
    after = dependency_options(dependencies)
    try:
        return int(_call(["sbatch", "--parsable", *after, str(script.resolve())]).split(";")[0])
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
    size = int(found[1]) if found else ARRAY_SIZE
    if size == 0:
        raise ValueError("this cluster has no job arrays (MaxArraySize=0); `modelsoups finetune` trains without them")
    return size


def ranges(numbers: list[int]) -> str:
    """Return numbers in sbatch's notation for job arrays: [0, 1, 2, 5] gives "0-2,5"."""
    parts: list[list[int]] = []
    for n in sorted(numbers):
        if parts and n == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], n]
        else:
            parts.append([n])
    return ",".join("-".join(map(str, p)) for p in parts)
