"""How draw, submit, status and locks grow with the number of ingredients, without training: seconds, and their growth.

    python benchmarks/scale.py 100 1000

Makes run folders as a sweep leaves them half-way (a third complete, a third under way, the rest not begun; manifests
and metrics of the real size, weights of a few bytes), and a queue of as many tasks, read as from squeue. The baseline
is the smaller number: cost per ingredient should not grow with it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from modelsoups.cluster import slurm, status, submit
from modelsoups.config.compose import load
from modelsoups.config.schema import Config
from modelsoups.disk import lock, manifests
from modelsoups.experiment.experiment import Experiment
from modelsoups.stages import sweep

SEARCH = "kind: random\ncount: 1\nparameters: {lr: {log10_uniform: [-4, -3]}, weight_decay: {constant: 0.1}, \
label_smoothing: {constant: 0.0}, epochs: {integer: [4, 16]}, mixup: {constant: 0.0}, aug: {constant: minimal}}\n"


def make(folder: Path, count: int) -> Config:
    """A run of `count` ingredients half-way, in the present folder."""
    (folder / "search.yaml").write_text(SEARCH)
    cfg = load([f"sweep.search={folder / 'search.yaml'}", f"sweep.count={count}", f"runs={folder / 'run'}"])
    sweep.run(Experiment(cfg))
    row = {"step": 100, "epoch": 2.5, "loss": 1.0, "lr": 1e-4, "timing": {"seconds": 900.0, "ranks": 1}}
    for index in range(count * 2 // 3):
        ingredient = cfg.run.ingredient(index)
        ingredient.mkdir(parents=True)
        (ingredient / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for _ in range(500)))
        if index % 2:
            weights = ingredient / "model.safetensors"
            weights.write_bytes(b"weights")
            inputs = {"recipe": {}, "initialization": "x" * 64, "train": "y" * 64}
            facts = {"inputs": inputs, "files": {weights.name: 7}, "seconds": 3600.0, "layouts": ["1x1"], "loss": 1.0}
            (ingredient / manifests.MANIFEST).write_text(json.dumps(facts))
    return cfg


def seconds(act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def fake_slurm(folder: Path, cfg: Config, count: int) -> None:
    """squeue and sbatch of a cluster that has accepted the array, as programs on PATH."""
    comment = cfg.run.root.resolve()
    lines = "".join(f"7|{i}|{cfg.name}.sweep|PENDING||Priority|{comment}\n" for i in range(0, count, 2))
    (folder / "queue").write_text(lines)
    for name, text in {
        "squeue": f"cat {folder / 'queue'}",
        "sbatch": "echo 8",
        "scontrol": "echo MaxArraySize = 100001",
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"


def locks(cfg: Config, count: int) -> None:
    """Stub work of no time: take and leave the lock of every folder, one after the other."""
    for index in range(count):
        with lock.held(cfg.run.ingredient(index)) as held:
            held.check()


def measure(count: int) -> dict[str, float]:
    """Seconds of each part at this size."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw = seconds(lambda: make(folder, count))
        cfg = load([f"sweep.search={folder / 'search.yaml'}", f"sweep.count={count}", f"runs={folder / 'run'}"])
        fake_slurm(folder, cfg, count)
        jobs: list[slurm.Job] = []
        took = {"draw and folders": draw, "squeue": seconds(lambda: jobs.extend(slurm.queue(cfg.run.root)))}
        took["status"] = seconds(lambda: status.summary(status.scan(cfg.run, Experiment(cfg).draw.recipes(), jobs)))
        took["submit"] = seconds(lambda: submit.run(Experiment(cfg)))
        took["locks"] = seconds(lambda: locks(cfg, count))
        return took


def main() -> None:
    small, large = (int(a) for a in sys.argv[1:3] or ("100", "1000"))
    few, many = measure(small), measure(large)
    print(f"\n{'':<18}{small:>8}{large:>8}   growth per ingredient")
    for name in few:
        print(f"{name:<18}{few[name]:>7.2f}s{many[name]:>7.2f}s{many[name] / large / (few[name] / small):>8.2f}x")


if __name__ == "__main__":
    main()
