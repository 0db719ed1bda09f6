"""Mixing checkpoints against the usual ways, side by side: `python benchmarks/soup.py --folder /big/disk`.

Each measurement is a process of its own with the files in the page cache; the ways take turns, and the median of the
repeats counts. Every count is measured at the first size, every size at the first count. Baselines: `cat` of the same
bytes; the loop of the official code (torch.load, a term per model added in float32); timm's avg_checkpoints (float64).
Writes results/benchmarks/soup.json, soup.md and soup.png.
"""

from __future__ import annotations

import argparse
import json
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


def checkpoints(folder: Path, count: int, blocks: int) -> None:
    """The same weights as .safetensors and .pt, for the ways that read either."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    for n in range(count):
        generator = torch.Generator().manual_seed(n)
        state = {k: torch.randn(s, generator=generator) for k, s in shapes(blocks).items()}
        save_file(state, folder / f"{n}.safetensors")
        torch.save(state, folder / f"{n}.pt")


# ---- the ways; each runs in a process of its own ----


def ours(folder: Path, count: int) -> None:
    from modelsoups.core.readers import open_checkpoint
    from modelsoups.soup.mixing import mix_to_file

    opened = [open_checkpoint(folder / f"{n}.safetensors") for n in range(count)]
    mix_to_file(opened, {"*": [1 / count] * count}, folder / "ours.safetensors", {})


def ours_with_hashes(folder: Path, count: int) -> None:
    from modelsoups import soup

    soup.mix(soup.uniform([folder / f"{n}.safetensors" for n in range(count)]), folder / "hashed.safetensors")


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
    with open("/dev/null", "wb") as null:
        subprocess.run(["cat", *(str(folder / f"{n}.safetensors") for n in range(count))], stdout=null, check=True)


WAYS = {f.__name__: f for f in (ours, ours_with_hashes, official, timm_average, cat)}


def once(way: str, folder: Path, count: int) -> dict[str, float]:
    """Seconds by the clock and of the processor, without the imports, and the process's peak memory in MB."""
    mine = resource.getrusage(resource.RUSAGE_SELF)
    start, begin = mine.ru_utime + mine.ru_stime, time.perf_counter()
    WAYS[way](folder, count)
    seconds = time.perf_counter() - begin
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(u.ru_utime + u.ru_stime for u in used)
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count the process that this one was forked from
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return {"seconds": seconds, "cpu_seconds": cpu - start, "peak_mb": peak / 1024}


def measure(folder: Path, counts: list[int], blocks: list[int], repeats: int) -> Iterator[list[dict[str, object]]]:
    """Every way at every number of checkpoints and every size, in turns; all rows so far after each."""
    rows: list[dict[str, object]] = []
    for size in blocks:
        for count in counts if size == blocks[0] else counts[:1]:
            here = folder / f"{size}-{count}"
            checkpoints(here, count, size)
            runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
            for _ in range(repeats):
                for way in WAYS:
                    cat(here, count)  # the files are in the page cache for every way alike
                    command = [sys.executable, __file__, "--once", way, "--folder", str(here), "--counts", str(count)]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    runs[way].append(json.loads(done.stdout))
            mb = sum(f.stat().st_size for f in here.glob("[0-9]*.safetensors")) / 2**20
            for way, taken in runs.items():
                medians = {key: statistics.median(r[key] for r in taken) for key in taken[0]}
                rows.append({"way": way, "k": count, "blocks": size, "mb": mb, **medians})
                print(f"{way:18} K={count:3} blocks={size:3} {mb:8.0f} MB", medians, flush=True)
            shutil.rmtree(here)
            yield rows


def slope(rows: list[dict[str, object]]) -> float:
    """Of log seconds against log bytes, over our rows."""
    mine = [r for r in rows if r["way"] == "ours"]
    x = torch.tensor([float(str(r["mb"])) for r in mine], dtype=torch.float64).log()
    y = torch.tensor([float(str(r["seconds"])) for r in mine], dtype=torch.float64).log()
    if len(mine) < 2:
        return float("nan")
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def write(rows: list[dict[str, object]], out: Path, command: str) -> None:
    from matplotlib.figure import Figure

    from modelsoups import runs

    growth = slope(rows)
    facts = {"command": command, "slope": growth, "rows": rows, "provenance": runs.provenance()}
    runs.write_json(out / "soup.json", facts)
    lines = ["| way | K | blocks | MB read | seconds | x ours | CPU seconds | x ours | peak MB |", "|---" * 9 + "|"]
    for r in rows:
        mine = next(o for o in rows if (o["way"], o["k"], o["blocks"]) == ("ours", r["k"], r["blocks"]))
        wall, cpu = (float(str(r[key])) / float(str(mine[key])) for key in ("seconds", "cpu_seconds"))
        cells = f"{r['mb']:.0f} | {r['seconds']:.2f} | {wall:.2f} | {r['cpu_seconds']:.2f} | {cpu:.2f}"
        lines.append(f"| {r['way']} | {r['k']} | {r['blocks']} | {cells} | {r['peak_mb']:.0f} |")
    text = f"`{command}`\n\nGrowth of our seconds with the bytes read: slope {growth:.2f} on logarithmic axes.\n\n"
    runs.write_text(out / "soup.md", text + "\n".join(lines) + "\n")
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for way in WAYS:
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
    made.add_argument("--once", choices=WAYS, help=argparse.SUPPRESS)
    args = made.parse_args()
    if args.once:
        print(json.dumps(once(args.once, args.folder, args.counts[0])))
        return
    shown = f"python benchmarks/soup.py --counts {' '.join(map(str, args.counts))} --blocks "
    shown += f"{' '.join(map(str, args.blocks))} --repeats {args.repeats}"
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for rows in measure(Path(folder), args.counts, args.blocks, args.repeats):
            write(rows, ROOT / "results" / "benchmarks", shown)


if __name__ == "__main__":
    main()
