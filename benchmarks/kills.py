"""Kill -9 a fine-tuning run at random moments: every resume must end with the bytes of the undisturbed run.

    python benchmarks/kills.py [--kills 20] [--seed 0]

A tiny run (the miniature's model, 320 images, mixup, RandAugment, a checkpoint every two steps) is killed, with the
process that decodes for it in every other turn, at a moment drawn uniformly from its steps (a step, and the part of a
step's time after it), then resumed and killed again with probability 0.5, then left to end. Compared are the weights,
the averages along the run and the metrics but for the clock. Exits with 1 if any differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from pico import arguments, make_data

from modelsoups.config.compose import load
from modelsoups.config.schema import Config
from modelsoups.data import loader
from modelsoups.disk import provenance
from modelsoups.experiment.experiment import Experiment
from modelsoups.stages import finetune, heads, sweep

RECIPE = ["recipe.mixup=0.5", "recipe.aug=rand-m5-n1", "recipe.epochs=4", "recipe.ema=[0.9]", "recipe.swa=[0.5]"]


def started(cfg: Config, apart: bool) -> int:
    """A process (and process group) that fine-tunes ingredient 0, and decodes in another one if apart."""
    child = os.fork()
    if child == 0:
        os.setsid()
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        if apart:
            loader.KEEP_DECODED, loader.cores = 0, lambda: 2
        status = 1
        try:
            finetune.run(Experiment(cfg))
            status = 0
        finally:
            os._exit(status)
    return child


def killed(child: int, rows: Path, moment: float, second: float) -> bool:
    """Kill the group so many steps after the beginning, a step taking so many seconds; False if it had ended."""
    while steps(rows) < int(moment) and not gone(child):
        time.sleep(0.001)
    time.sleep((moment % 1) * second)
    if gone(child):
        os.waitpid(child, 0)
        return False
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def gone(child: int) -> bool:
    """Whether a child has ended, and well; it is left to be waited for."""
    ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    assert ended is None or (ended.si_code, ended.si_status) == (os.CLD_EXITED, 0)
    return ended is not None


def to_the_end(cfg: Config, apart: bool) -> float:
    begin = time.perf_counter()
    if os.waitpid(started(cfg, apart), 0)[1]:
        raise RuntimeError(f"{cfg.run.ingredient(0)} did not end well")
    return time.perf_counter() - begin


def content(folder: Path) -> dict[str, Any]:
    """What must not differ."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metrics = [{k: v for k, v in row.items() if k != "timing"} for row in rows]
    return {"metrics": metrics, **{p.name: p.read_bytes() for p in folder.glob("*.safetensors")}}


def steps(rows: Path) -> int:
    return rows.read_bytes().count(b"\n") if rows.exists() else 0


def had_checkpoint(folder: Path) -> str:
    there = "with a" if (folder / "checkpoint.pt").exists() else "no"
    return f"after {steps(folder / 'metrics.jsonl'):2} steps, {there} checkpoint"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        options = [*arguments(home, make_data(home / "data")), "ingredient=0", "finetune.parallel=1", *RECIPE]
        cfg = load([*options, f"runs={home / 'begun'}"])
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            heads.run(Experiment(cfg))
            sweep.run(Experiment(cfg))
        folders = {}
        for turn in ("undisturbed", *range(args.kills)):
            shutil.copytree(home / "begun", home / str(turn))
            folders[turn] = load([*options, f"runs={home / str(turn)}"])
        to_the_end(folders["undisturbed"], False)
        expected = content(folders["undisturbed"].run.ingredient(0))
        total = len(expected["metrics"])
        seconds = {apart: to_the_end(clean(folders["undisturbed"]), apart) for apart in (False, True)}
        assert content(folders["undisturbed"].run.ingredient(0)) == expected
        wrong = kills = turn = 0
        while kills < args.kills:
            ours, apart = folders[turn % args.kills], turn % 2 == 1
            clean(ours)
            turn += 1
            said = []
            rows, step = ours.run.ingredient(0) / "metrics.jsonl", seconds[apart] / total
            while killed(started(ours, apart), rows, draw.uniform(steps(rows), total), step):
                kills += 1
                said.append(had_checkpoint(ours.run.ingredient(0)))
                if kills == args.kills or draw.random() < 0.5:
                    to_the_end(ours, apart)
                    break
            same = content(ours.run.ingredient(0)) == expected
            wrong += not same
            if said:
                print(f"killed {'; '.join(said)}: {'bit-identical' if same else 'DIFFERENT'}", flush=True)
    print(
        f"{kills} kills, {wrong} runs that ended otherwise; {seconds[False]:.1f} s undisturbed; "
        f"{provenance.git_commit()}"
    )
    raise SystemExit(wrong > 0)


def clean(cfg: Config) -> Config:
    """The same without the ingredient."""
    shutil.rmtree(cfg.run.ingredient(0), ignore_errors=True)
    return cfg


if __name__ == "__main__":
    main()
