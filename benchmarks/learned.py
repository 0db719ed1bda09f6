"""A step of a soup learned by layer, ours against autograd through all checkpoints: `python benchmarks/learned.py`.

The baseline is the official code's (learned_bylayer.py): every checkpoint's tensors in memory as leaves that need a
gradient, the mixed weights a differentiable sum over them. Ours streams the checkpoints from their files (in the page
cache), or keeps them as rows in memory (resident). Each way is a process of its own; the median of its steps after the
first counts, and of several rounds the best, since a shared machine's memory is slower at times. "model" is the forward
and backward of the mixed model alone, which every way must do; the seconds beyond it are what the number of checkpoints
costs. "floor" is that and two bare readings of all checkpoints' rows in memory (torch.sum): no exact step can do with
less, since the coefficients of a step depend on all inner products of the one before. "own MB" is the process's memory
after a step without what it shares with the system's cache of files. The gradients of the coefficients are compared
with the baseline's.
Writes results/benchmarks/learned.json, learned.md and learned.png.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelsoups.checkpoints.formats import open_checkpoint
from modelsoups.disk import provenance, storage
from modelsoups.soup.pool import model_gradient
from modelsoups.weights.coefficient_gradients import Stack
from modelsoups.weights.state_dicts import layer_of

OUT = Path(__file__).parents[1] / "results" / "benchmarks"
CLASSES = 100
Step = Callable[[Tensor, Tensor], Tensor]


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=CLASSES).eval()


def ours(model: nn.Module, files: Sequence[Path], resident: int | None = 0) -> Step:
    stack = Stack([open_checkpoint(f) for f in files], resident=resident)
    groups = sorted(set(map(layer_of, stack.shapes)))

    def step(images: Tensor, labels: Tensor) -> Tensor:
        mixed = stack.mixed({g: [1 / len(files)] * len(files) for g in groups})
        by_weights = model_gradient(model, mixed, 1.0, images, labels)[2]
        by_group = {g: torch.zeros(len(files), dtype=torch.float64) for g in groups}
        for key, products_K in stack.products(by_weights).items():
            by_group[layer_of(key)] += products_K
        return torch.stack(list(by_group.values()))

    return step


def ours_resident(model: nn.Module, files: Sequence[Path]) -> Step:
    return ours(model, files, resident=2**40)


def official(model: nn.Module, files: Sequence[Path]) -> Step:
    """As AlphaWrapper: the sum over models of every tensor, each of which needs a gradient, set into the model."""
    held = [dict(open_checkpoint(f)) for f in files]
    names = [name for name, _ in model.named_parameters()]
    lists = [tuple(state[name].requires_grad_() for name in names) for state in held]
    groups = sorted(set(map(layer_of, names)))
    rows = [groups.index(layer_of(name)) for name in names]
    owners = [model.get_submodule(name.rpartition(".")[0]) for name in names]
    for owner, name in zip(owners, names, strict=True):
        delattr(owner, name.rpartition(".")[2])

    def step(images: Tensor, labels: Tensor) -> Tensor:
        alpha_GK = torch.full((len(groups), len(files)), 1 / len(files), requires_grad=True)
        tensors = zip(*lists, strict=True)
        params = [
            sum(tuple(p * a for p, a in zip(ps, alpha_GK[row], strict=True)))
            for ps, row in zip(tensors, rows, strict=True)
        ]
        for owner, name, p in zip(owners, names, params, strict=True):
            setattr(owner, name.rpartition(".")[2], p)
        F.cross_entropy(model(images), labels).backward()
        assert alpha_GK.grad is not None
        return alpha_GK.grad.double()

    return step


def model_alone(model: nn.Module, files: Sequence[Path]) -> Step:
    state = dict(open_checkpoint(files[0]))

    def step(images: Tensor, labels: Tensor) -> Tensor:
        model_gradient(model, state, 1.0, images, labels)
        return torch.zeros(1)

    return step


def floor(model: nn.Module, files: Sequence[Path]) -> Step:
    opened = [open_checkpoint(f) for f in files]
    state = dict(opened[0])
    held_KN = torch.empty(len(files), sum(tensor.numel() for tensor in state.values()))
    for row, checkpoint in zip(held_KN, opened, strict=True):
        torch.cat([checkpoint[key].flatten() for key in state], out=row)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        held_KN.sum()
        model_gradient(model, state, 1.0, images, labels)
        held_KN.sum()
        return torch.zeros(1)

    return step


WAYS: dict[str, Callable[[nn.Module, Sequence[Path]], Step]] = {
    "ours": ours,
    "ours_resident": ours_resident,
    "official": official,
    "model": model_alone,
    "floor": floor,
}


def once(way: str, folder: Path, count: int, name: str, batch: int, steps: int) -> dict[str, object]:
    """Median seconds of the steps after the first, gradient of the last, MB of the process with and without caches."""
    model = network(name)
    generator = torch.Generator().manual_seed(1)
    size = model.default_cfg["input_size"][-1]
    images = torch.randn(batch, 3, size, size, generator=generator)
    labels = torch.randint(CLASSES, (batch,), generator=generator)
    step = WAYS[way](model, [folder / f"{n}.safetensors" for n in range(count)])
    seconds: list[float] = []
    anonymous: list[float] = []
    for _ in range(steps + 1):
        gc.collect()
        begin = time.perf_counter()
        gradient = step(images, labels)
        seconds.append(time.perf_counter() - begin)
        anonymous.append(of_status("RssAnon"))
    peaks = {"peak_mb": of_status("VmHWM"), "own_mb": max(anonymous)}
    return {"seconds": statistics.median(seconds[1:]), **peaks, "gradient": gradient.tolist()}


def of_status(key: str) -> float:
    """A line of this process's status, in MB."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(key)) / 1024


def measure(args: argparse.Namespace, folder: str) -> Iterator[list[dict[str, object]]]:
    """Every way at every number of checkpoints; all rows so far after each number."""
    rows: list[dict[str, object]] = []
    model = network(args.model)
    for n in range(max(args.counts)):
        generator = torch.Generator().manual_seed(n)
        state = {k: v + 0.01 * torch.randn(v.shape, generator=generator) for k, v in model.state_dict().items()}
        storage.save_weights(Path(folder) / f"{n}.safetensors", state)
    os.sync()  # the disk is at rest while steps are measured
    for count in args.counts:
        found: dict[str, dict[str, object]] = {}
        for way in [*WAYS] * args.rounds:
            own = ["--once", way, folder, "--counts", str(count), "--model", args.model]
            own += ["--batch", str(args.batch), "--steps", str(args.steps)]
            done = subprocess.run([sys.executable, __file__, *own], capture_output=True, text=True, check=True)
            taken = json.loads(done.stdout)
            found[way] = min(taken, found.get(way, taken), key=lambda r: r["seconds"])
        expected = torch.tensor(found["official"]["gradient"])
        for way, taken in found.items():
            row = {
                "way": way,
                "k": count,
                **{k: round(float(str(taken[k])), 3) for k in ("seconds", "peak_mb", "own_mb")},
            }
            if way.startswith("ours"):
                got = torch.tensor(taken["gradient"])
                row["relative_difference"] = float((got - expected).norm() / expected.norm())
            rows.append(row)
            print(row, flush=True)
        yield rows


def goals(rows: list[dict[str, object]]) -> list[str]:
    """A line a number of checkpoints: how many times faster than the official step, and than what it adds to the model.

    "at most" is what the floor would gain, and the model's own forward and backward alone.
    """
    head = ["K", "whole step", "whole step, resident", "at most, floor", "at most, model alone"]
    head += ["beyond the model", "beyond, resident"]
    lines = ["Times faster than the official step:", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for k in dict.fromkeys(r["k"] for r in rows):
        of = {r["way"]: float(str(r["seconds"])) for r in rows if r["k"] == k}
        whole = [of["official"] / of[way] for way in ("ours", "ours_resident", "floor", "model")]
        added = {way: seconds - of["model"] for way, seconds in of.items()}
        beyond = [added["official"] / added[way] for way in ("ours", "ours_resident")]
        lines.append(f"| {k} | " + " | ".join(f"{ratio:.1f}" for ratio in [*whole, *beyond]) + " |")
    return lines


def write(rows: list[dict[str, object]], command: str, weights: int) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    made = provenance.record()
    storage.write_json(OUT / "learned.json", {"command": command, "weights": weights, "rows": rows, "provenance": made})
    head = [
        "way",
        "K",
        "seconds",
        "beyond the model",
        "x ours",
        "beyond, x ours",
        "own MB",
        "with cached files",
        "gradient differs by",
    ]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for r in rows:
        of = {o["way"]: float(str(o["seconds"])) for o in rows if o["k"] == r["k"]}
        seconds = float(str(r["seconds"]))
        beyond, own = seconds - of["model"], of["ours"] - of["model"]
        more = f"{beyond:.2f} | {seconds / of['ours']:.1f} | {beyond / own:.1f}" if r["way"] != "model" else " | | "
        differs = f"{r['relative_difference']:.0e}" if "relative_difference" in r else ""
        lines.append(
            f"| {r['way']} | {r['k']} | {seconds:.2f} | {more} | {r['own_mb']:.0f} | {r['peak_mb']:.0f} | {differs} |"
        )
    text = f"`{command}` ({weights / 1e6:.1f} million weights, {made['machine']}, commit {str(made['commit'])[:9]})"
    storage.write_text(OUT / "learned.md", "\n".join([text, "", *goals(rows), "", *lines, ""]))
    draw(rows)


def draw(rows: list[dict[str, object]]) -> None:
    """Seconds and memory over the number of checkpoints, learned.png."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    names = {
        "ours": "ours, from files",
        "ours_resident": "ours, rows in memory",
        "model": "the model alone",
        "floor": "the model and two readings",
    }
    counts = sorted({int(str(r["k"])) for r in rows})
    figure = Figure(figsize=(8, 4), layout="constrained")
    for axes, key, label in zip(figure.subplots(1, 2), ("seconds", "own_mb"), ("seconds a step", "MB"), strict=True):
        for way in WAYS:
            mine = [(int(str(r["k"])), float(str(r[key]))) for r in rows if r["way"] == way]
            axes.loglog(*zip(*mine, strict=True), marker="o", label=names.get(way, way))
        axes.set(xlabel="checkpoints", title=label)
        axes.set_xticks(counts, labels=map(str, counts))
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(OUT / "learned.png", dpi=120)


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--counts", type=int, nargs="+", default=[4, 8, 16, 32])
    made.add_argument("--model", default="vit_small_patch32_224")
    made.add_argument("--batch", type=int, default=8)
    made.add_argument("--steps", type=int, default=3, help="measured, after one that is not")
    made.add_argument("--rounds", type=int, default=1, help="of all ways in turn, of which each one's best counts")
    made.add_argument("--once", nargs=2, help=argparse.SUPPRESS)
    args = made.parse_args()
    if args.once:
        print(json.dumps(once(args.once[0], Path(args.once[1]), args.counts[0], args.model, args.batch, args.steps)))
        return
    counts = " ".join(map(str, args.counts))
    shown = f"python benchmarks/learned.py --counts {counts} --model {args.model} --batch {args.batch}"
    shown += f" --steps {args.steps} --rounds {args.rounds}"
    weights = sum(p.numel() for p in network(args.model).parameters())
    with tempfile.TemporaryDirectory() as folder:
        for rows in measure(args, folder):
            write(rows, shown, weights)


if __name__ == "__main__":
    main()
