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
ALONE = {
    "Python alone": ["-c", "pass"],
    "`import torch` alone": ["-c", "import torch"],
    "`import numba` alone": ["-c", "import numba"],
}
COMMANDS = {  # what -> (arguments of Python, goal in CPU seconds)
    "`modelsoups --help`": ([*MODELSOUPS, "--help"], 0.3),
    "`modelsoups mix -h`": ([*MODELSOUPS, "mix", "-h"], 1.0),
    "`modelsoups doctor -h`": ([*MODELSOUPS, "doctor", "-h"], 1.0),
    "a usage error of `mix`": ([*MODELSOUPS, "mix", "radin", "a.safetensors", "-o", "x"], 1.0),
    "`modelsoups status`": ([*MODELSOUPS, "status"], 1.0),
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


def line(what: str, args: list[str], home: Path, goal: float | None, runs: int) -> str:
    cold = cpu_seconds(args, home, cold=True)
    warm = statistics.median(cpu_seconds(args, home) for _ in range(runs))
    shown = f"| {what} | {'' if goal is None else goal} | {warm:.2f} | {cold:.2f} |"
    print(shown, flush=True)
    return shown


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--runs", type=int, default=5, help="number of warm runs, whose median is shown")
    runs = made.parse_args().runs
    lines = ["| | goal | warm | cold |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        for seed, file in enumerate(("a.safetensors", "b.safetensors")):
            save_file({"w": torch.full((4, 4), float(seed))}, home / file)
        lines += [line(what, args, home, None, runs) for what, args in ALONE.items()]
        lines += [line(what, args, home, goal, runs) for what, (args, goal) in COMMANDS.items()]
        options = [*arguments(home, make_data(home / "data")), "name=x"]
        cpu_seconds([*MODELSOUPS, *options], home)
        for stage in STAGES:
            what = f"`{stage}` with nothing to do"
            lines.append(line(what, [*MODELSOUPS, stage, *options], home, 2.0, runs))
        lines.append(line("all stages with nothing to do", [*MODELSOUPS, *options], home, 2.0, runs))
    record = provenance.record()
    machine = f"{record['machine']}; PyTorch {torch.__version__}; {provenance.git_commit()}"
    text = [f"`python benchmarks/startup.py --runs {runs}`: CPU seconds. {machine}", "", *lines, ""]
    storage.write_text(OUT, "\n".join(text))


if __name__ == "__main__":
    main()
