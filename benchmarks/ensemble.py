"""Ensembles of cached logits, streamed, against all of them in memory: `python benchmarks/ensemble.py`.

K models' float16 logits of N images and C classes are written first (random), then scored as a mean and greedily. The
baseline stacks them in float32, as a notebook does. Each way is a process of its own with the files in the page cache.
At the scale of the paper (72 models, 200,000 images, 1,000 classes) the files have 29 GB. Writes
results/benchmarks/ensemble.json and ensemble.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from modelsoups import soup
from modelsoups.disk import provenance, storage

OUT = Path(__file__).parents[1] / "results" / "benchmarks"


def stacked(paths: dict[str, Path], labels_N: torch.Tensor) -> int:
    every_KNC = torch.stack([torch.from_numpy(np.load(p)).float() for p in paths.values()])
    return int((every_KNC.mean(dim=0).argmax(dim=1) == labels_N).sum())


def mean(paths: dict[str, Path], labels_N: torch.Tensor) -> int:
    return soup.ensemble(paths, labels_N).correct


def greedy(paths: dict[str, Path], labels_N: torch.Tensor) -> int:
    return int(soup.greedy_ensemble(paths, labels_N).trace[-1]["best"])


WAYS = {f.__name__: f for f in (stacked, mean, greedy)}


def of_status(key: str) -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(key)) / 1024


def once(way: str, folder: Path, images: int) -> dict[str, float]:
    paths = {p.name: p for p in sorted(folder.glob("*.npy"))}
    before, begin = of_status("VmHWM"), time.perf_counter()
    correct = WAYS[way](paths, torch.zeros(images, dtype=torch.long))
    return {"seconds": time.perf_counter() - begin, "mb": of_status("VmHWM") - before, "correct": correct}


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--counts", type=int, nargs="+", default=[12, 24, 48])
    made.add_argument("--images", type=int, default=5000)
    made.add_argument("--classes", type=int, default=1000)
    made.add_argument("--once", nargs=2, help=argparse.SUPPRESS)
    args = made.parse_args()
    if args.once:
        print(json.dumps(once(args.once[0], Path(args.once[1]), args.images)))
        return
    rows: list[dict[str, object]] = []
    for count in args.counts:
        with tempfile.TemporaryDirectory() as folder:
            for k in range(count):
                made_NC = np.random.default_rng(k).standard_normal((args.images, args.classes), dtype=np.float32)
                np.save(Path(folder) / f"{k:03}.npy", made_NC.astype(np.float16))
            gb = sum(f.stat().st_size for f in Path(folder).glob("*.npy")) / 1e9
            for way in WAYS:
                own = [sys.executable, __file__, "--once", way, folder, "--images", str(args.images)]
                done = subprocess.run(own, capture_output=True, text=True, check=True)
                rows.append({"way": way, "k": count, "gb": gb, **json.loads(done.stdout)})
                print(rows[-1], flush=True)
    command = " ".join(["python benchmarks/ensemble.py", *sys.argv[1:]])
    origin = provenance.record()
    storage.write_json(OUT / "ensemble.json", {"command": command, "rows": rows, "provenance": origin})
    lines = [f"`{command}` ({origin['machine']}, commit {str(origin['commit'])[:9]})", ""]
    lines += ["| way | K | GB of logits | seconds | MB beyond the imports |", "|---|---|---|---|---|"]
    lines += [f"| {r['way']} | {r['k']} | {r['gb']:.2f} | {r['seconds']:.2f} | {r['mb']:.0f} |" for r in rows]
    storage.write_text(OUT / "ensemble.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
