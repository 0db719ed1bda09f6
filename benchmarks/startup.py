"""CPU seconds that commands take before they do anything: `python benchmarks/startup.py`.

Help, usage errors, `status`, the import of the library, a mix of two tiny files, and every stage of the tests' tiny
experiment when it has nothing to do. Beside them, what importing PyTorch and Numba alone takes, which nothing that
mixes weights can go below. User and system seconds of the process and its children; warm is the median of --runs,
cold one run with empty caches of Python's bytecode and Numba's machine code, PyTorch's own among them. The files
themselves may be in the system's cache. One thread. Writes results/benchmarks/startup.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import torch
from pico import arguments, make_data
from safetensors.torch import save_file

from modelsoups.disk import provenance, storage

OUT = Path(__file__).parents[1] / "results" / "benchmarks" / "startup.md"
MODELSOUPS = ["-m", "modelsoups"]
STAGES = ("prepare", "heads", "sweep", "finetune", "evaluate", "soup", "report")
TORCH = "`import torch` alone"
ALONE = {
    "Python alone": ["-c", "pass"],
    TORCH: ["-c", "import torch"],
    "`import numba` alone": ["-c", "import numba"],
}
COMMANDS = {  # what -> (arguments of Python, goal in CPU seconds)
    "`modelsoups --help`": ([*MODELSOUPS, "--help"], 0.3),
    "`modelsoups mix -h`": ([*MODELSOUPS, "mix", "-h"], 1.0),
    "`modelsoups doctor -h`": ([*MODELSOUPS, "doctor", "-h"], 1.0),
    "a usage error of `mix`": ([*MODELSOUPS, "mix", "radin", "a.safetensors", "-o", "x"], 1.0),
    "`from modelsoups import soup`": (["-c", "from modelsoups import soup"], 1.5),
    "`mix uniform` of two tiny files": (
        [*MODELSOUPS, "mix", "uniform", "a.safetensors", "b.safetensors", "-o", "soup.safetensors"],
        1.5,
    ),
}


def cpu_seconds(args: list[str], home: Path, cold: bool = False) -> float:
    """Return user and system seconds of `python args...` in the folder `home`, with its children's.

    Raises RuntimeError if it ends with another error than one of usage.
    """
    with tempfile.TemporaryDirectory() as caches:
        places = {"PYTHONPYCACHEPREFIX": f"{caches}/bytecode", "NUMBA_CACHE_DIR": f"{caches}/numba"} if cold else {}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", **places}
        with open(home / "output", "wb") as output:
            process = subprocess.Popen([sys.executable, *args], cwd=home, env=environment, stdout=output, stderr=output)
            _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    text = (home / "output").read_text()
    if process.returncode and "needs --holdout" not in text:
        raise RuntimeError(f"{' '.join(args)}: {text[-2000:]}")
    return usage.ru_utime + usage.ru_stime


def measured(what: str, args: list[str], home: Path, runs: int) -> tuple[float, float]:
    """Return the warm and the cold CPU seconds of a command."""
    cold = cpu_seconds(args, home, cold=True)
    warm = statistics.median(cpu_seconds(args, home) for _ in range(runs))
    print(f"{what}: {warm:.2f} warm, {cold:.2f} cold", flush=True)
    return warm, cold


def table(found: dict[str, tuple[float, float]], goals: dict[str, float]) -> list[str]:
    """Return the lines of the table; the last column is what a command takes beyond PyTorch's import."""
    least = found[TORCH][0]
    lines = ["| | goal | warm | cold | warm, beyond `import torch` |", "|---|---|---|---|---|"]
    for what, (warm, cold) in found.items():
        beyond = f"{warm - least:.2f}" if warm > least else ""
        lines.append(f"| {what} | {goals.get(what, '')} | {warm:.2f} | {cold:.2f} | {beyond} |")
    return lines


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--runs", type=int, default=5, help="number of warm runs, whose median is shown")
    runs = made.parse_args().runs
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        for seed, file in enumerate(("a.safetensors", "b.safetensors")):
            save_file({"w": torch.full((4, 4), float(seed))}, home / file)
        options = [*arguments(home, make_data(home / "data")), "name=x"]
        cpu_seconds([*MODELSOUPS, *options], home)
        goals = {**COMMANDS, "`modelsoups status`": ([*MODELSOUPS, "status", *options], 1.0)}
        for stage in STAGES:
            goals[f"`{stage}` with nothing to do"] = [*MODELSOUPS, stage, *options], 2.0
        goals["all stages with nothing to do"] = [*MODELSOUPS, *options], 2.0
        todo = ALONE | {what: args for what, (args, _) in goals.items()}
        found = {what: measured(what, args, home, runs) for what, args in todo.items()}
    record = provenance.record()
    facts = f"({record['machine']}, PyTorch {torch.__version__}, commit {str(record['commit'])[:9]})"
    lines = table(found, {what: goal for what, (_, goal) in goals.items()})
    storage.write_text(
        OUT, "\n".join([f"`python benchmarks/startup.py --runs {runs}` {facts}: CPU seconds", "", *lines, ""])
    )


if __name__ == "__main__":
    main()
