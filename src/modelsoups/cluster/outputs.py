"""What the output files of a run's SLURM jobs, in runs/<name>/slurm, say about how the jobs ended."""

import re
from dataclasses import dataclass
from pathlib import Path

from modelsoups.disk.terminal import printable

TASK = re.compile(r"sweep(?:-(\d+))?-(\d+)_(\d+)\.out")
STAGE = re.compile(r"(\w+)-(\d+)\.out")
START = re.compile(r", start \d+, on ")  # the line with which each start begins
# Lines that tell why a job ended, in the order of their weight.
TELLING = (re.compile(r"slurmstepd.*(DUE TO |oom)", re.IGNORECASE), re.compile("modelsoups: error: "))
NOISE = re.compile(r"(srun|slurmstepd|scontrol)(-\w+)?: ")
TAIL = 16384  # bytes from the end of a file that are read


@dataclass(frozen=True)
class Output:
    """The output file of one job or task."""

    job: str  # its number, with that of the task
    path: Path

    @property
    def reason(self) -> str:
        """Return the line that says best why the job ended; "" if it said nothing."""
        lines = self._lines()
        for kind in TELLING:
            if told := [line for line in lines if kind.search(line)]:
                return _cleaned(told[-1])
        own = [line for line in lines if not NOISE.match(line)]
        return _cleaned((own or lines or [""])[-1])

    @property
    def complete(self) -> bool:
        """Return whether the job of a stage has written its last line."""
        return self._lines()[-1:] != [] and self._lines()[-1].endswith(": complete")

    def _lines(self) -> list[str]:
        """Return the lines of the last start that are not empty, without the one with which it begins."""
        with open(self.path, "rb") as file:
            file.seek(max(0, self.path.stat().st_size - TAIL))
            lines = [line.strip() for line in re.split(r"[\r\n]+", file.read().decode(errors="replace"))]
        begin = max((i + 1 for i, line in enumerate(lines) if START.search(line)), default=0)
        return [line for line in lines[begin:] if line]


def newest(folder: Path) -> tuple[dict[int, Output], dict[str, Output]]:
    """Return the newest output of each ingredient, by its number, and of each other job, by its name."""
    tasks, stages = dict[int, tuple[int, Output]](), dict[str, tuple[int, Output]]()
    for path in folder.glob("*.out"):
        if found := TASK.fullmatch(path.name):
            offset, job, task = (int(number or 0) for number in found.groups())
            output = Output(f"{job}_{task}", path)
            tasks[offset + task] = max(tasks.get(offset + task, (-1, output)), (job, output), key=_number)
        elif found := STAGE.fullmatch(path.name):
            output = Output(found[2], path)
            stages[found[1]] = max(stages.get(found[1], (-1, output)), (int(found[2]), output), key=_number)
    return {i: output for i, (_, output) in tasks.items()}, {name: output for name, (_, output) in stages.items()}


def _number(item: tuple[int, Output]) -> int:
    return item[0]


def _cleaned(line: str) -> str:
    return printable(line.removeprefix("modelsoups: error: "))[:300]
