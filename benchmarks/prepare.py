"""prepare against plain webdataset code that reads and writes the same bytes, on the same number of processes.

    python benchmarks/prepare.py [--images 10000] [--workers 2] [--rounds 3]

Generates JPEGs of ImageNet's mean size (110 KB) in a temporary folder, as an ImageFolder tree and as the training tar,
and prints images/s, the ratio (target: at least 0.8) and the peak memory of all processes together as a Markdown
table. Worker processes are started before the clock, for both: importing torch takes seconds, ImageNet minutes.
prepare lists, checks, splits, shuffles, hashes and syncs to disk what the plain code only copies.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import statistics
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from modelsoups.config.compose import load
from modelsoups.data.imagenet import metadata
from modelsoups.experiment.experiment import Experiment
from modelsoups.stages import prepare
from modelsoups.workers.processes import run_tasks

CLASSES, KILOBYTES, SHARD = 50, 110, 1000


def generate(root: Path, images: int) -> None:
    """train/ as folders, and the same images as ILSVRC2012_img_train.tar under tar/."""
    base = photograph()
    wnids = metadata.wnids()[:CLASSES]
    (root / "tar").mkdir()
    with tarfile.open(root / "tar" / "ILSVRC2012_img_train.tar", "w") as outer:
        for wnid in wnids:
            folder = root / "folder" / "train" / wnid
            folder.mkdir(parents=True)
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as inner:
                for number in range(images // CLASSES):
                    name = f"{wnid}_{number}.JPEG"
                    comment = name.encode()
                    data = base[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + base[2:]
                    (folder / name).write_bytes(data)
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    inner.addfile(info, io.BytesIO(data))
            info = tarfile.TarInfo(f"{wnid}.tar")
            info.size = buffer.tell()
            outer.addfile(info, io.BytesIO(buffer.getvalue()))


def photograph() -> bytes:
    """A JPEG of 500 x 375 pixels and about KILOBYTES."""
    noise = np.random.default_rng(0).integers(0, 256, (94, 125, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC)
    for quality in range(50, 100):
        buffer = io.BytesIO()
        image.save(buffer, format="jpeg", quality=quality)
        if buffer.tell() >= KILOBYTES * 1000:
            break
    return buffer.getvalue()


def plain(task: tuple[list[Path], Path]) -> int:
    """What webdataset's own documentation does: read files, write shards."""
    import webdataset  # which loads torch: not into the process whose memory is measured

    files, out = task
    labels = metadata.class_of()
    with webdataset.ShardWriter(f"file:{out}-%06d.tar", maxcount=SHARD, verbose=0) as writer:
        for file in files:
            writer.write({"__key__": file.stem, "jpg": file.read_bytes(), "cls": labels[file.parent.name]})
    return len(files)


def run_plain(pool: multiprocessing.pool.Pool, root: Path, out: Path, workers: int) -> float:
    out.mkdir()
    begin = time.perf_counter()
    files = sorted((root / "folder" / "train").glob("*/*.JPEG"))
    tasks = [(files[i::workers], out / f"plain{i}") for i in range(workers)]
    total = sum(pool.map(plain, tasks))
    return total / (time.perf_counter() - begin)


def run_prepare(root: Path, out: Path, form: str, workers: int) -> float:
    """images/s of training and hold-out images together, from listing to manifest."""
    options = [f"data.root={root / form}", f"data.dir={out}", f"data.workers={workers}", "data.shifts=[]"]
    cfg = load(["experiment=imagenet", "data.check_counts=false", *options])
    begin = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        prepare.run(Experiment(cfg))
    elapsed = time.perf_counter() - begin
    return sum(map(len, (prepare_set(out, name) for name in ("train", "holdout")))) / elapsed


def prepare_set(out: Path, name: str) -> np.ndarray:
    from modelsoups.data.shards import ShardSet

    return ShardSet(out / name).labels_N


@contextlib.contextmanager
def peak_memory(others: set[int]) -> Iterator[list[float]]:
    """Megabytes of this process and all below it but `others`, shared pages counted once, sampled 10 times a second."""
    peak, stop = [0.0], threading.Event()

    def sample() -> None:
        while not stop.wait(0.1):
            peak[0] = max(peak[0], sum(proportional(p) for p in family(os.getpid()) if p not in others) / 1e3)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def family(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        children = [int(c) for t in Path(f"/proc/{pid}/task").iterdir() for c in (t / "children").read_text().split()]
        return [pid, *(p for child in children for p in family(child))]
    return []


def proportional(pid: int) -> float:
    """A process's share of memory (Pss), in kB."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return float(line.split()[1])
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        generate(root, args.images)
        list(run_tasks(abs, [0], 1, "start"))  # the server of workers, which imports torch
        speed: dict[str, list[float]] = {"plain webdataset": [], "folder": [], "tar": []}
        memory = 0.0
        with multiprocessing.get_context("fork").Pool(args.workers) as pool:
            plain_ones = {int(p.pid or 0) for p in pool._pool}  # type: ignore[attr-defined]
            for turn in range(args.rounds):
                speed["plain webdataset"].append(run_plain(pool, root, root / f"plain-{turn}", args.workers))
                for form in ("folder", "tar"):
                    with peak_memory(plain_ones) as peak:
                        speed[form].append(run_prepare(root, root / f"{form}-{turn}", form, args.workers))
                    memory = max(memory, peak[0])
    base = statistics.median(speed["plain webdataset"])
    print(f"{args.images:,} JPEGs of {KILOBYTES} KB, {args.workers} processes, median of {args.rounds} rounds\n")
    print("| | images/s | ratio | MB/s |\n| --- | --- | --- | --- |")
    for what, rates in speed.items():
        rate = statistics.median(rates)
        label = what if what.startswith("plain") else f"prepare, {what}"
        print(f"| {label} | {rate:,.0f} | {rate / base:.2f} | {rate * KILOBYTES / 1000:,.0f} |")
    print(f"\nPeak memory of prepare, all processes: {memory:,.0f} MB")


if __name__ == "__main__":
    main()
