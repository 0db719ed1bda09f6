"""Mixing checkpoints against the usual ways, side by side: `python benchmarks/soup.py --folder /big/disk`.

Each measurement is a process of its own, its imports apart, with its files in the page cache (they are read first); the
median of the repeats counts. Every count is measured at the last size, every size at the first count. Baselines: `cat`
of the same bytes to /dev/null; the loop of the official code (torch.load, a term per model added in float32); timm's
avg_checkpoints (float64); mergekit's linear method (`--mergekit PYTHON`, an interpreter that has mergekit: its pins
need not suit ours). Ours hashes its inputs, writes and waits for the disk (fsync), which the others do not do; `write`
is the time of the last two alone. Writes results/benchmarks/soup.json, soup.md and soup.png.
"""

from __future__ import annotations

import argparse
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

import torch

ROOT = Path(__file__).parents[1]
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


def checkpoints(folder: Path, count: int, blocks: int, suffix: str) -> None:
    """The same weights in either format."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        generator = torch.Generator().manual_seed(n)
        state = {k: torch.randn(s, generator=generator) for k, s in shapes(blocks).items()}
        path = folder / f"{n}{suffix}"
        save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)


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
    from safetensors.torch import load_file, save_file

    total: dict[str, torch.Tensor] = {}
    for n in range(count):
        for k, v in load_file(folder / f"{n}.safetensors").items():
            total[k] = total[k] + v.to(torch.float64) if n else v.to(torch.float64)
    save_file({k: v.div(count).float() for k, v in total.items()}, folder / "timm.safetensors")


def cat(folder: Path, count: int) -> None:
    warm(inputs(folder, count, ".safetensors"))


MERGEKIT = """
import json, sys, time
from mergekit.scripts.merge_raw_pytorch import main
begin = time.perf_counter()
main(sys.argv[1:], standalone_mode=False)
print(json.dumps({"seconds": time.perf_counter() - begin}))
"""


def mergekit(python: str, folder: Path, count: int) -> dict[str, float]:
    """Its own command for raw checkpoints, as `once` measures the others."""
    models = [{"model": str(p), "parameters": {"weight": 1.0}} for p in inputs(folder, count, ".safetensors")]
    (folder / "linear.yml").write_text(json.dumps({"merge_method": "linear", "models": models}))  # JSON is YAML
    command = [python, "-c", MERGEKIT, str(folder / "linear.yml"), str(folder / "mergekit")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert child.stdout is not None
    printed = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise ValueError(f"--mergekit {python}: mergekit failed there, or is not installed")
    seconds = json.loads(printed.strip().splitlines()[-1])["seconds"]
    return {"seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}


WAYS = {f.__name__: f for f in (cat, ours, timm_average, ours_pt, official)}
PT = ("ours_pt", "official")
OFTEN = ("cat", "ours", "ours_pt")  # the fast ones are measured `repeats` times, the others once


def once(way: str, folder: Path, count: int) -> dict[str, float]:
    """Seconds by the clock and of the processor, without the imports, and the process's peak memory in MB."""
    if way.startswith("ours"):
        import modelsoups.soup  # noqa: F401
    begin_cpu, begin = time.process_time(), time.perf_counter()
    WAYS[way](folder, count)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    children = resource.getrusage(resource.RUSAGE_CHILDREN)  # of cat
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count the process that this one was forked from
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return {
        "seconds": seconds,
        "cpu_seconds": cpu + children.ru_utime + children.ru_stime,
        "peak_mb": peak / 1024,
    }


def measured(way: str, folder: Path, count: int, python: str) -> dict[str, float]:
    if way == "mergekit":
        return mergekit(python, folder, count)
    command = [sys.executable, __file__, "--once", way, "--folder", str(folder), "--counts", str(count)]
    return dict(json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))


def measure(
    folder: Path, counts: list[int], blocks: list[int], repeats: int, python: str | None
) -> Iterator[list[dict[str, object]]]:
    """Every way at every number of checkpoints and every size; all rows so far after each size and format."""
    rows: list[dict[str, object]] = []
    for size in blocks:
        for suffix in (".safetensors", ".pt"):
            here, several = folder / str(size), counts if size == blocks[-1] else counts[:1]
            checkpoints(here, several[-1], size, suffix)
            ways = [w for w in WAYS if (w in PT) == (suffix == ".pt")]
            ways += ["mergekit"] if python and suffix == ".safetensors" else []
            for count, way in [(c, w) for c in several for w in ways]:
                taken = []
                for _ in range(repeats if way in OFTEN else 1):
                    warm(inputs(here, count, suffix))
                    taken.append(measured(way, here, count, python or ""))
                mb = sum(f.stat().st_size for f in inputs(here, count, suffix)) / 2**20
                medians = {key: statistics.median(r[key] for r in taken) for key in taken[0]}
                rows.append({"way": way, "k": count, "blocks": size, "mb": mb, **medians})
                print(f"{way:18} K={count:3} blocks={size:3} {mb:8.0f} MB", medians, flush=True)
            written = write_seconds(here, inputs(here, 1, suffix)[0].stat().st_size)
            print(f"writing one file of {size} blocks, with fsync: {written:.2f} s", flush=True)
            shutil.rmtree(here)
            yield rows


def warm(paths: list[Path]) -> None:
    """Bring files into the page cache."""
    with open("/dev/null", "wb") as null:
        subprocess.run(["cat", *map(str, paths)], stdout=null, check=True)


def write_seconds(folder: Path, size: int) -> float:
    """What writing an output takes alone, until it is on the disk."""
    content, begin = bytes(size), time.perf_counter()
    with open(folder / "written", "wb") as file:
        file.write(content)
        os.fsync(file.fileno())
    return time.perf_counter() - begin


def slope(rows: list[dict[str, object]]) -> float:
    """Of log seconds against log bytes, over rows of ours."""
    mine = [r for r in rows if r["way"] == "ours"]
    x = torch.tensor([float(str(r["mb"])) for r in mine], dtype=torch.float64).log()
    y = torch.tensor([float(str(r["seconds"])) for r in mine], dtype=torch.float64).log()
    if len(mine) < 2:
        return float("nan")
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def write(rows: list[dict[str, object]], out: Path, command: str) -> None:
    from matplotlib.figure import Figure

    from modelsoups import runs

    largest = max(int(str(r["blocks"])) for r in rows)
    by_count = slope([r for r in rows if r["blocks"] == largest])
    by_size = slope([r for r in rows if r["k"] == rows[0]["k"]])
    facts = {"command": command, "slope_in_k": by_count, "slope_in_size": by_size, "rows": rows}
    runs.write_json(out / "soup.json", {**facts, "provenance": runs.provenance()})
    lines = ["| way | K | blocks | MB read | seconds | x ours | x cat | CPU seconds | peak MB |", "|---" * 9 + "|"]
    for r in rows:
        of = {o["way"]: o for o in rows if (o["k"], o["blocks"]) == (r["k"], r["blocks"])}
        to = [float(str(r["seconds"])) / float(str(of[way]["seconds"])) for way in ("ours", "cat")]
        cells = f"{r['mb']:.0f} | {r['seconds']:.2f} | {to[0]:.2f} | {to[1]:.2f} | {r['cpu_seconds']:.2f}"
        lines.append(f"| {r['way']} | {r['k']} | {r['blocks']} | {cells} | {r['peak_mb']:.0f} |")
    text = f"`{command}`\n\nGrowth of our seconds on logarithmic axes: slope {by_count:.2f} in the number of "
    text += f"checkpoints, {by_size:.2f} in their size.\n\n"
    runs.write_text(out / "soup.md", text + "\n".join(lines) + "\n")
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for way in dict.fromkeys(str(r["way"]) for r in rows):
        mine = sorted((float(str(r["mb"])), float(str(r["seconds"]))) for r in rows if r["way"] == way)
        axes.loglog(*zip(*mine, strict=True), marker="o", label=way)
    axes.set(xlabel="MB read", ylabel="seconds")
    axes.legend()
    figure.savefig(out / "soup.png", dpi=120)


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--folder", type=Path, help="where the checkpoints go; the system's temporary folder by default")
    made.add_argument("--counts", type=int, nargs="+", default=[8, 16, 32])
    made.add_argument("--blocks", type=int, nargs="+", default=[3, 6, BLOCKS], help="sizes; 12 is a whole one")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--mergekit", metavar="PYTHON", help="an interpreter that has mergekit; without, it is left out")
    made.add_argument("--once", choices=WAYS, help=argparse.SUPPRESS)
    args = made.parse_args()
    if args.once:
        print(json.dumps(once(args.once, args.folder, args.counts[0])))
        return
    shown = f"python benchmarks/soup.py --counts {' '.join(map(str, args.counts))} --blocks "
    shown += f"{' '.join(map(str, args.blocks))} --repeats {args.repeats}"
    shown += " --mergekit python-with-mergekit" if args.mergekit else ""
    if not args.mergekit:
        print("mergekit: not installed; --mergekit names an interpreter that has it")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for rows in measure(Path(folder), args.counts, args.blocks, args.repeats, args.mergekit):
            write(rows, ROOT / "results" / "benchmarks", shown)


if __name__ == "__main__":
    main()
