"""One step of a soup learned by layer, ours against autograd through all checkpoints: `python benchmarks/learned.py`.

The baseline is the official code's way: every checkpoint in memory, the mixed weights a differentiable sum over them.
Ours streams the checkpoints from their files twice. Each measurement is a process of its own; the gradients of the
coefficients are compared. Writes results/benchmarks/learned.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from modelsoups import runs
from modelsoups.core.methods.learned import coefficient_gradient
from modelsoups.core.methods.pool import model_gradient
from modelsoups.core.readers import open_checkpoint
from modelsoups.core.weights import RunningSum, layer_of

ROOT = Path(__file__).parents[1]
BATCH, CLASSES = 8, 100


def network(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=CLASSES).eval()


def ours(model: torch.nn.Module, files: list[Path], images: Tensor, labels: Tensor) -> Tensor:
    opened = [open_checkpoint(f) for f in files]
    groups = list(dict.fromkeys(map(layer_of, opened[0])))
    total = RunningSum()
    for state in opened:
        total.add(state, 1 / len(files))
    _, _, by_weights = model_gradient(model, total.divided(1), 1.0, images, labels)
    columns = [coefficient_gradient(by_weights, state, groups) for state in opened]
    return torch.tensor([[c[g] for c in columns] for g in groups], dtype=torch.float64)


def official(model: torch.nn.Module, files: list[Path], images: Tensor, labels: Tensor) -> Tensor:
    states = [open_checkpoint(f) for f in files]
    held = [dict(s) for s in states]
    groups = list(dict.fromkeys(map(layer_of, held[0])))
    alpha_GK = torch.full((len(groups), len(files)), 1 / len(files), requires_grad=True)
    mixed = {k: sum(a * s[k] for a, s in zip(alpha_GK[groups.index(layer_of(k))], held, strict=True)) for k in held[0]}
    F.cross_entropy(torch.func.functional_call(model, mixed, (images,)), labels).backward()
    assert alpha_GK.grad is not None
    return alpha_GK.grad.double()


def once(way: str, folder: Path, count: int, name: str) -> None:
    torch.set_num_threads(1)
    model = network(name)
    generator = torch.Generator().manual_seed(1)
    size = model.default_cfg["input_size"][-1]
    images = torch.randn(BATCH, 3, size, size, generator=generator)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    files = [folder / f"{n}.safetensors" for n in range(count)]
    begin, start = time.perf_counter(), time.process_time()
    gradient = {"ours": ours, "official": official}[way](model, files, images, labels)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - start
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak, "gradient": gradient.tolist()}))


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--counts", type=int, nargs="+", default=[8, 16, 32])
    made.add_argument("--model", default="vit_tiny_patch16_224")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--once", nargs=2, help=argparse.SUPPRESS)
    args = made.parse_args()
    if args.once:
        once(args.once[0], Path(args.once[1]), args.counts[0], args.model)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model = network(args.model)
        for n in range(max(args.counts)):
            generator = torch.Generator().manual_seed(n)
            state = {k: v + 0.01 * torch.randn(v.shape, generator=generator) for k, v in model.state_dict().items()}
            runs.save_weights(Path(folder) / f"{n}.safetensors", state)
        for count in args.counts:
            found: dict[str, list[dict[str, object]]] = {"ours": [], "official": []}
            for _ in range(args.repeats):
                for way, taken in found.items():
                    own = ["--once", way, folder, "--counts", str(count), "--model", args.model]
                    done = subprocess.run([sys.executable, __file__, *own], capture_output=True, text=True, check=True)
                    taken.append(json.loads(done.stdout))
            a, b = (torch.tensor(found[way][0]["gradient"]) for way in ("ours", "official"))
            row: dict[str, object] = {"k": count, "relative_difference": float((a - b).norm() / b.norm())}
            for way, taken in found.items():
                for key in ("seconds", "cpu_seconds", "peak_mb"):
                    row[f"{way}_{key}"] = round(statistics.median(float(str(t[key])) for t in taken), 3)
            rows.append(row)
            print(row, flush=True)
    command = " ".join(["python benchmarks/learned.py", *sys.argv[1:]])
    facts = {"command": command, "rows": rows, "provenance": runs.provenance()}
    runs.write_json(ROOT / "results" / "benchmarks" / "learned.json", facts)


if __name__ == "__main__":
    main()
