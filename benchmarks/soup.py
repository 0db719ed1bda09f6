"""Mixing checkpoints against the usual ways, side by side: `python benchmarks/soup.py --folder /big/disk/soup`.

Each measurement is a process of its own, its imports apart, with its files in the page cache (they are read first) and
nothing left for the disk to write (sync). 2 GB are used and freed right before: what a virtual machine has not used for
some seconds its host may have taken back, and gives again at four times the price. The ways are measured in turn, the
fast ones `--repeats` times, of which the median counts: a shared machine is slower for minutes at a time, which must
not fall on one of two that are compared.
`cat_cold` and `ours_cold` find their files on the disk alone (dropped from the page cache by posix_fadvise), as who
opens a folder of checkpoints does. Every count is measured at the last size, every size at the first count. Baselines:
`cat` of the same bytes to /dev/null; `cat_disk`, the same and then as many bytes as the output has, written until they
are on the disk, which nobody can do without who leaves a soup there; the loop of the official code (torch.load, a term
per model added in float32); timm's avg_checkpoints (float64); mergekit's linear method (`--mergekit PYTHON`, an
interpreter that has mergekit: its pins need not suit ours). `--before SRC` measures an older commit, the folder src/ of
a worktree, as `ours_before` in the same run. Ours hashes its inputs and waits for the disk (fsync, in a
column of its own), which the other three do not do.
Writes results/benchmarks/soup.json, soup.md and soup.png after every count; rows are kept in the folder too, so that
the same command at the same commit goes on after a break. At 12 blocks a checkpoint has 350 MB: 32 of them need 12 GB
of disk, and as much memory for the page cache. Then runs greedy.py and learned.py beside it: a greedy soup against the
official procedure, a learned step against autograd through all checkpoints.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import gc
import importlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

with contextlib.suppress(ImportError):  # an older commit has no such modules, and `--once` does not need them
    from modelsoups.disk import provenance, storage

ROOT = Path(__file__).parents[1]
Row = dict[str, Any]
COUNTS = [8, 16, 32]
WIDTH, BLOCKS = 768, 12  # of ViT-B/32's image tower: 88 million parameters, 350 MB


def shapes(blocks: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a ViT-B/32 with so many blocks."""
    made: dict[str, tuple[int, ...]] = {"conv1.weight": (WIDTH, 3, 32, 32), "positional_embedding": (50, WIDTH)}
    for n in range(blocks):
        at = f"transformer.resblocks.{n}."
        made |= {f"{at}attn.in_proj_weight": (3 * WIDTH, WIDTH), f"{at}attn.in_proj_bias": (3 * WIDTH,)}
        made |= {f"{at}attn.out_proj.weight": (WIDTH, WIDTH), f"{at}attn.out_proj.bias": (WIDTH,)}
        made |= {f"{at}mlp.c_fc.weight": (4 * WIDTH, WIDTH), f"{at}mlp.c_proj.weight": (WIDTH, 4 * WIDTH)}
        made |= {f"{at}mlp.c_fc.bias": (4 * WIDTH,), f"{at}mlp.c_proj.bias": (WIDTH,)}
        made |= {f"{at}ln_{i}.{w}": (WIDTH,) for i in (1, 2) for w in ("weight", "bias")}
    return {**made, "head.weight": (1000, WIDTH), "head.bias": (1000,)}


def make_checkpoints(folder: Path, count: int, blocks: int, suffix: str) -> None:
    """The same weights in either format; those that are there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    base = {k: torch.randn(s, generator=generator) for k, s in shapes(blocks).items()}
    size = 4 * sum(tensor.numel() for tensor in base.values())
    missing = [path for path in inputs(folder, count, suffix) if not path.exists()]
    if (free := shutil.disk_usage(folder).free) < (need := (len(missing) + 2) * size):
        raise ValueError(f"{folder}: {free / 1e9:.0f} GB free, {need / 1e9:.0f} needed; give another --folder")
    for path in missing:
        state = {k: v + 0.01 * int(path.stem) for k, v in base.items()}
        with storage.atomic(path) as tmp:
            save_file(state, tmp) if suffix == ".safetensors" else torch.save(state, tmp)


def inputs(folder: Path, count: int, suffix: str) -> list[Path]:
    return [folder / f"{n}{suffix}" for n in range(count)]


# ---- the ways; each runs in a process of its own ----


def ours(folder: Path, count: int, suffix: str = ".safetensors") -> None:
    from modelsoups import soup

    soup.mix(soup.uniform(inputs(folder, count, suffix)), folder / "ours.safetensors")


def ours_pt(folder: Path, count: int) -> None:
    ours(folder, count, ".pt")


def official(folder: Path, count: int) -> None:
    total: dict[str, torch.Tensor] = {}
    for n in range(count):
        state = torch.load(folder / f"{n}.pt")
        total = {k: v * (1.0 / count) + (total[k] if n else 0) for k, v in state.items()}
    torch.save(total, folder / "official.pt")


def timm_average(folder: Path, count: int) -> None:
    from safetensors.torch import load_file

    total: dict[str, torch.Tensor] = {}
    for n in range(count):
        for k, v in load_file(folder / f"{n}.safetensors").items():
            total[k] = total[k] + v.to(torch.float64) if n else v.to(torch.float64)
    save_file({k: v.div(count).float() for k, v in total.items()}, folder / "timm.safetensors")


def cat(folder: Path, count: int) -> None:
    warm(inputs(folder, count, ".safetensors"))


def cat_disk(folder: Path, count: int) -> None:
    cat(folder, count)
    some, left = os.urandom(2**20), inputs(folder, 1, ".safetensors")[0].stat().st_size
    with open(folder / "written", "wb") as file:
        while left > 0:
            left -= file.write(some[:left])
        file.flush()
        os.fsync(file.fileno())


TOUCH = "b'x' * 2**31"  # in a process of its own, right before a clock starts
MERGEKIT = f"""
import json, subprocess, sys, time
from mergekit.scripts.merge_raw_pytorch import main
subprocess.run([sys.executable, "-c", {TOUCH!r}], check=True)
begin_cpu, begin = time.process_time(), time.perf_counter()
main(sys.argv[1:], standalone_mode=False)
seconds, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({{"seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak / 1024}}))
"""


def mergekit(python: str, folder: Path, count: int) -> dict[str, float]:
    """Its own command for raw checkpoints, as `once` measures the others."""
    models = [{"model": str(p), "parameters": {"weight": 1.0}} for p in inputs(folder, count, ".safetensors")]
    (folder / "linear.yml").write_text(json.dumps({"merge_method": "linear", "models": models}))  # JSON is YAML
    command = [python, "-c", MERGEKIT, str(folder / "linear.yml"), str(folder / "mergekit")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if done.returncode:
        raise ValueError(f"--mergekit {python}: mergekit failed there, or is not installed")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


WAYS = {f.__name__: f for f in (cat, cat_disk, ours, timm_average, ours_pt, official)}
WAYS |= {"cat_cold": cat, "ours_cold": ours, "ours_before": ours}
PT = ("ours_pt", "official")
OTHERS = ("timm_average", "mergekit", "official")
SHOWN = ("ours", "ours_pt", "cat")
OFTEN = ("cat", "cat_disk", "ours", "ours_before", "ours_pt")  # measured `repeats` times, the others once


def once(way: str, folder: Path, count: int) -> dict[str, float]:
    """Seconds by the clock (and of them in fsync) and of the processor, without the imports; peak memory in MB."""
    if way.startswith("ours"):
        importlib.import_module("modelsoups.soup")

        try:  # with Numba; others import it when they first mix
            importlib.import_module("modelsoups.weights.fast.xxh3")
        except ImportError:  # an older commit, for `ours_before`
            importlib.import_module("modelsoups.core.kernels")
    waited, fsync = [0.0], os.fsync

    def timed(descriptor: int) -> None:
        begin = time.perf_counter()
        fsync(descriptor)
        waited[0] += time.perf_counter() - begin

    os.fsync = timed  # type: ignore[assignment]
    gc.collect()  # what imports left behind: 0.1 s, else within whatever comes first
    subprocess.run([sys.executable, "-c", TOUCH], check=True)
    before = of_children()
    begin_cpu, begin = time.process_time(), time.perf_counter()
    WAYS[way](folder, count)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count the process that this one was forked from
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    cpu += of_children() - before  # cat
    return {"seconds": seconds, "fsync_seconds": waited[0], "cpu_seconds": cpu, "peak_mb": peak / 1024}


def of_children() -> float:
    """Seconds of the processor that this process's children took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(way: str, folder: Path, count: int, args: argparse.Namespace) -> dict[str, float]:
    """One measurement, from files in the page cache (or not) and with a disk at rest; its output is removed."""
    os.sync()
    bring = drop if way.endswith("_cold") else warm
    bring(inputs(folder, count, ".pt" if way in PT else ".safetensors"))
    before = set(folder.iterdir())
    if way == "mergekit":
        found = mergekit(args.mergekit, folder, count)
    else:
        command = [sys.executable, __file__, "--once", way, "--folder", str(folder), "--counts", str(count)]
        source = {"PYTHONPATH": args.before} if way == "ours_before" else {}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **source})
        found = dict(json.loads(done.stdout))
    for path in set(folder.iterdir()) - before:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return found


def measure(args: argparse.Namespace, folder: Path) -> Iterator[list[Row]]:
    """Every way at every number of checkpoints and every size; all rows so far after each count."""
    end = time.monotonic() + 60 * args.minutes
    kept = folder / f"rows-{str(provenance.record()['commit'])[:9]}.json"
    rows: list[Row] = storage.read_json(kept) if kept.exists() else []
    for size, suffix in [(b, s) for b in args.blocks for s in (".safetensors", ".pt")]:
        here, several = folder / str(size), args.counts if size == args.blocks[-1] else args.counts[:1]
        ways = [w for w in WAYS if (w in PT) == (suffix == ".pt")]
        ways = [w for w in ways if w != "ours_before" or args.before]
        ways += ["mergekit"] if args.mergekit and suffix == ".safetensors" else []
        done = {r["k"] for r in rows if r["blocks"] == size and (r["way"] in PT) == (suffix == ".pt")}
        for count in [c for c in several if c not in done]:
            if time.monotonic() > end:
                print(f"--minutes {args.minutes} are over: K={count} at {size} blocks is missing ({suffix}), and more")
                return
            make_checkpoints(here, count, size, suffix)
            taken: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
            for repeat in range(args.repeats):
                for way in ways if repeat == 0 else [w for w in ways if w in OFTEN]:
                    taken[way].append(measured(way, here, count, args))
            mb = sum(f.stat().st_size for f in inputs(here, count, suffix)) / 2**20
            for way, found in taken.items():
                medians = {key: statistics.median(r.get(key, 0.0) for r in found) for key in found[0]}
                rows.append({"way": way, "k": count, "blocks": size, "mb": mb, **medians})
                print(f"{way:18} K={count:3} blocks={size:3} {mb:8.0f} MB", medians, flush=True)
            storage.write_json(kept, rows)
            yield rows
        for path in inputs(here, args.counts[-1], suffix):
            path.unlink(missing_ok=True)
    yield rows


def warm(paths: list[Path]) -> None:
    """Bring files into the page cache."""
    with open("/dev/null", "wb") as null:
        subprocess.run(["cat", *map(str, paths)], stdout=null, check=True)


def drop(paths: list[Path]) -> None:
    """Drop files that the disk holds in full from the page cache."""
    for path in paths:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# ---- the table ----


def slope(rows: list[Row], way: str = "ours") -> float:
    """Of log seconds against log bytes, over the rows of a way."""
    mine = [r for r in rows if r["way"] == way]
    if len(mine) < 2:
        return float("nan")
    x, y = (torch.tensor([r[key] for r in mine], dtype=torch.float64).log() for key in ("mb", "seconds"))
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def goals(rows: list[Row]) -> list[str]:
    """A line a cell: ours beside reading, reading and writing, and the median of the three usual ways."""
    beside = (("ours", "cat"), ("ours", "cat_disk"), ("ours_cold", "cat_cold"))
    head = [
        "K",
        "blocks",
        *(f"{a} / {b}" for a, b in beside),
        *(f"median of others / {w}" for w in ("ours", "ours_pt")),
    ]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for k, blocks in dict.fromkeys((r["k"], r["blocks"]) for r in rows):
        of = {r["way"]: r["seconds"] for r in rows if (r["k"], r["blocks"]) == (k, blocks)}
        others = [of[w] for w in OTHERS if w in of]
        usual = statistics.median(others) if len(others) == len(OTHERS) else float("nan")
        taken = collections.defaultdict(lambda: float("nan"), of)
        ratios = [taken[a] / taken[b] for a, b in beside] + [usual / taken[w] for w in ("ours", "ours_pt")]
        lines.append(f"| {k} | {blocks} | " + " | ".join(f"{r:.2f}" for r in ratios) + " |")
    return lines


def table(rows: list[Row]) -> list[str]:
    head = ["way", "K", "blocks", "MB read", "seconds", "of them fsync", "x ours", "CPU seconds", "peak MB"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for r in rows:
        of = {o["way"]: o["seconds"] for o in rows if (o["k"], o["blocks"]) == (r["k"], r["blocks"])}
        ratio = r["seconds"] / of["ours"] if "ours" in of else float("nan")
        cells = f"{r['mb']:.0f} | {r['seconds']:.2f} | {r.get('fsync_seconds', 0):.2f} | {ratio:.2f}"
        lines.append(
            f"| {r['way']} | {r['k']} | {r['blocks']} | {cells} | {r['cpu_seconds']:.2f} | {r['peak_mb']:.0f} |"
        )
    return lines


def write(rows: list[Row], out: Path, command: str) -> None:
    largest = max(r["blocks"] for r in rows)
    by_count = [r for r in rows if r["blocks"] == largest]
    by_size = [r for r in rows if r["k"] == rows[0]["k"]]
    made = provenance.record()
    slopes = {f"{way} by {name}": slope(of, way) for name, of in (("K", by_count), ("size", by_size)) for way in SHOWN}
    storage.write_json(out / "soup.json", {"command": command, "slopes": slopes, "rows": rows, "provenance": made})
    text = [f"`{command}` ({made['machine']}, commit {str(made['commit'])[:9]})", "", *goals(rows), ""]
    text += ["Growth of the seconds with the bytes read, slope on logarithmic axes:", ""]
    text += [f"- {name}: {value:.2f}" for name, value in slopes.items()]
    storage.write_text(out / "soup.md", "\n".join([*text, "", *table(rows), ""]))
    plot(by_count, by_size, out / "soup.png")


def plot(by_count: list[Row], by_size: list[Row], path: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(9, 5), layout="constrained")
    panels = ("more checkpoints", by_count), ("larger checkpoints", by_size)
    for axes, (title, rows) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        for way in dict.fromkeys(r["way"] for r in rows):
            mine = sorted((r["mb"], r["seconds"]) for r in rows if r["way"] == way)
            style = {"linewidth": 3} if way == "ours" else {"linestyle": "--"} if way.startswith("cat") else {}
            axes.loglog(*zip(*mine, strict=True), marker="o", label=way, **style)
        axes.set(xlabel="MB read", ylabel="seconds", title=title)
        sizes = sorted({r["mb"] for r in rows if r["way"] == "cat"})
        axes.set_xticks(sizes, labels=[f"{mb:,.0f}" for mb in sizes])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.tick_params(labelleft=True)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--folder", type=Path, help="where the checkpoints go and stay; a temporary one by default")
    made.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    made.add_argument("--blocks", type=int, nargs="+", default=[3, 6, BLOCKS], help="sizes; 12 is a whole one")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--minutes", type=float, default=60, help="no count begins after; the same command goes on")
    made.add_argument("--mergekit", metavar="PYTHON", help="an interpreter that has mergekit; without, it is left out")
    made.add_argument("--before", metavar="SRC", help="the folder src/ of an older commit, measured in the same run")
    made.add_argument("--mixing-only", action="store_true", help="without greedy.py and learned.py")
    made.add_argument("--once", choices=WAYS, help=argparse.SUPPRESS)
    args = made.parse_args()
    if args.once:
        print(json.dumps(once(args.once, args.folder, args.counts[0])))
        return
    shown = f"python benchmarks/soup.py --counts {' '.join(map(str, args.counts))} --blocks "
    shown += f"{' '.join(map(str, args.blocks))} --repeats {args.repeats}"
    shown += " --mergekit python-with-mergekit" if args.mergekit else ""
    shown += " --before src-of-an-older-commit" if args.before else ""
    whole = bool(args.mergekit) and set(COUNTS) <= set(args.counts) and BLOCKS in args.blocks and len(args.blocks) > 1
    out = ROOT / "results" / "benchmarks" if whole else Path("soup-in-part")
    if not whole:
        print(f"not all counts, sizes and packages: the table goes to {out}, not into results/")
    if not args.mergekit:
        print("mergekit: not installed; --mergekit names an interpreter that has it")
    with contextlib.ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        for rows in measure(args, folder):
            write(rows, out, shown)
    for script in () if args.mixing_only else ("greedy.py", "learned.py"):
        subprocess.run([sys.executable, str(Path(__file__).with_name(script))], check=True)


if __name__ == "__main__":
    main()
