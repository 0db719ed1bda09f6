"""Kill -9 finetune, evaluate, soup, report and mix at random moments: each ends with the bytes of an undisturbed run.

    python benchmarks/kills_of_stages.py [--kills 20] [--seed 0]

The whole pipeline on the tests' tiny data, each command in a process group of its own. A command is killed at moments
drawn uniformly from the seconds that it took undisturbed, each time started again, and left to end. Compared are
weights, logits, soups, results, tables and the mixed file, and the metrics
but for the clock. Exits with 1 if any differs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from kills import content
from pico import arguments, make_data

from modelsoups.disk import provenance

STAGES = ("finetune", "evaluate", "soup", "report", "mix")
COMPARED = (".safetensors", ".npy", ".npz", ".md", ".tex", ".csv", ".jsonl")


def started(home: Path, stage: str, options: list[str]) -> subprocess.Popen[bytes]:
    """A command in a process group of its own; mix averages all ingredients."""
    models = sorted(str(path.relative_to(home)) for path in home.glob("runs/x/ingredients/*/model.safetensors"))
    arguments = ["uniform", *models, "-o", "mixed.safetensors"] if stage == "mix" else [*options, "name=x"]
    command = [sys.executable, "-m", "modelsoups", stage, *arguments]
    with open(home / "output", "ab") as output:
        return subprocess.Popen(command, cwd=home, stdout=output, stderr=output, start_new_session=True)


def to_the_end(home: Path, stage: str, options: list[str]) -> float:
    begin = time.perf_counter()
    if started(home, stage, options).wait():
        raise RuntimeError(f"{stage} did not end well: {(home / 'output').read_text()[-2000:]}")
    return time.perf_counter() - begin


def killed(home: Path, stage: str, options: list[str], moment: float) -> bool:
    """Start a command and kill its group after so many seconds; False if it had ended, which must be well."""
    process = started(home, stage, options)
    with contextlib.suppress(subprocess.TimeoutExpired):
        if process.wait(moment):
            raise RuntimeError(f"{stage} did not end well: {(home / 'output').read_text()[-2000:]}")
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def ending(home: Path) -> dict[str, object]:
    """What must not differ, by its place."""
    files = [path for part in ("runs/x", "results/x") for path in (home / part).rglob("*")] + [
        home / "mixed.safetensors"
    ]
    kept = [p for p in files if p.suffix in COMPARED and p.name != "metrics.jsonl"]
    found: dict[str, object] = {str(path.relative_to(home)): path.read_bytes() for path in kept}
    return found | {folder.name: content(folder) for folder in home.glob("runs/x/ingredients/*")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        options = arguments(home, make_data(home / "data"))
        begun, undisturbed, ours = (home / part for part in ("begun", "undisturbed", "killed"))
        begun.mkdir()
        for stage in ("heads", "sweep"):
            to_the_end(begun, stage, options)
        for copy in (undisturbed, ours):
            shutil.copytree(begun, copy)
        seconds = {stage: to_the_end(undisturbed, stage, options) for stage in STAGES}
        print("| command | undisturbed | killed after |\n|---|---|---|")
        share = [len(range(i, args.kills, len(STAGES))) for i in range(len(STAGES))]
        for stage, count in zip(STAGES, share, strict=True):
            moments = [draw.uniform(0, seconds[stage]) for _ in range(count)]
            said = [f"{m:.1f} s" if killed(ours, stage, options, m) else f"{m:.1f} s (had ended)" for m in moments]
            to_the_end(ours, stage, options)
            print(f"| {stage} | {seconds[stage]:.1f} s | {', '.join(said)} |", flush=True)
        expected, found = ending(undisturbed), ending(ours)
    wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    print(f"{len(expected)} files compared, {len(wrong)} differ {wrong[:5]}; {provenance.git_commit()}")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
