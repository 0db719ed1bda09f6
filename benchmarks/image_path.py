"""Fine-tuning of images against an older commit: the miniature's loader, training step and evaluation.

    python benchmarks/image_path.py --before OLD/src [--data data/iconnet] [--rounds 12] [--seconds 1.0]

OLD/src is the source folder of a worktree of the older commit; data/iconnet is made by `modelsoups prepare`.
One process for each of the two sources does the same work, a block of `seconds` at a time; the two take
turns (before, now, now, before, ...), so that both see the same machine. Counted is the CPU time of the
process, with one thread of torch. A ratio is the speed of now / before in two neighbouring blocks, above 1 where now is
faster: the median and its middle half. Results go into results/benchmarks/image_path.md.
"""

import argparse
import contextlib
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BATCH = 64
Processes = dict[str, "subprocess.Popen[str]"]
PARTS = {
    "loader": "loader: decoded and augmented batches",
    "step": "training step",
    "evaluate": "logits of test batches",
}


# ---- the process that measures one source ----


def works(home: Path, data: str) -> dict[str, Callable[[], object]]:
    """Return, for each part, a function that works on one batch."""
    import torch

    from modelsoups.config.compose import load
    from modelsoups.experiment.experiment import Experiment
    from modelsoups.recipes.recipe import Recipe
    from modelsoups.train.trainer import Trainer, Workspace

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = load(["experiment=miniature", f"data.dir={data}", f"runs={home / 'run'}", "wandb=disabled"])
    experiment = Experiment(config)
    train, test = experiment.sets.train, experiment.sets[config.data.test]
    values = {"lr": 1e-4, "weight_decay": 0.1, "label_smoothing": 0.1, "mixup": 0.5, "warmup_steps": 10, "clip": 1.0}
    recipe = Recipe(**values, epochs=10_000, aug="rand-m5-n1", seed=0, batch_size=BATCH)
    model, task = experiment.classifier(len(train.classes)), experiment.task
    trainer = Trainer(task, recipe, config.finetune, model, train, Workspace(home / "run", ""))
    model.train()
    batches = trainer.batches()
    fixed = [next(batches)]
    tests = itertools.cycle(list(task.test_batches(test, model)))

    def step() -> None:
        trainer.update(fixed)
        trainer.metrics.clock.take()

    def logits() -> None:
        with torch.inference_mode():
            task.logits(model, next(tests)[:BATCH])

    return {"loader": lambda: next(batches), "step": step, "evaluate": logits}


def serve(home: Path, data: str) -> None:
    """For each line "PART SECONDS" of standard input, print the CPU milliseconds per batch of a block."""
    parts = works(home, data)
    for work in parts.values():
        work()
    print("ready", flush=True)
    for line in sys.stdin:
        name, seconds = line.split()
        begin, count = time.process_time(), 0
        while time.process_time() - begin < float(seconds):
            parts[name]()
            count += 1
        print(json.dumps(1000 * (time.process_time() - begin) / count), flush=True)


# ---- turns ----


@contextlib.contextmanager
def started(sources: dict[str, str], home: Path, data: str) -> Iterator[Processes]:
    """Inside the with block: a process for each source, ready to work."""
    processes: Processes = {}
    for name, source in sources.items():
        (home / name).mkdir()
        command = [sys.executable, __file__, "--data", data, "--serve", str(home / name)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes[name] = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": source}, **pipes)
    for name, process in processes.items():
        while (line := process.stdout.readline()) != "ready\n":
            assert line, f"the process of {sources[name]} has ended"
    yield processes
    for process in processes.values():
        process.stdin.close()
        process.wait()


def measured(processes: Processes, part: str, args: argparse.Namespace) -> dict[str, list[float]]:
    """Return the milliseconds per batch of every block by source."""
    found: dict[str, list[float]] = {name: [] for name in processes}
    for turn in range(args.rounds):
        for name in list(processes) if turn % 2 == 0 else list(processes)[::-1]:
            print(part, args.seconds, file=processes[name].stdin, flush=True)
            found[name].append(json.loads(processes[name].stdout.readline()))
    return found


def row(part: str, found: dict[str, list[float]]) -> str:
    ratios = sorted(before / now for before, now in zip(found["before"], found["now"], strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4)
    before, now = (statistics.median(found[name]) for name in ("before", "now"))
    return f"| {PARTS[part]} | {before:.1f} | {now:.1f} | {middle:.3f} | {low:.3f} to {high:.3f} |"


def commit(source: str) -> str:
    command = ["git", "-C", source, "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", help="folder src/ of the older commit")
    parser.add_argument("--data", default="data/iconnet", help="the miniature's data sets")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time of a block")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(Path(args.serve), args.data)
    if not args.before:
        parser.error("--before SRC is missing")
    sources = {"before": str(Path(args.before).resolve()), "now": str(ROOT / "src")}
    with tempfile.TemporaryDirectory() as home, started(sources, Path(home), args.data) as processes:
        rows = [row(part, measured(processes, part, args)) for part in PARTS]
    old, new = map(commit, sources.values())
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    head = f"| CPU ms per batch of {BATCH} | {old} | {new} | ratio | middle half of {args.rounds} ratios |"
    title = f"`python benchmarks/image_path.py --before SRC`, {machine}"
    text = "\n".join([title, "", head, "|---|---|---|---|---|", *rows])
    (ROOT / "results" / "benchmarks" / "image_path.md").write_text(f"{text}\n")
    print(text)


if __name__ == "__main__":
    main()
