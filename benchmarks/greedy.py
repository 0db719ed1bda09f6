"""Greedy over 16 ingredients of a small CLIP on JPEG hold-out images, ours against the official procedure.

`python benchmarks/greedy.py`. The ingredients are IconCLIP with its zero-shot head and 16 disturbances of its weights;
the hold-out are IconNet's images, enlarged to ImageNet's usual size (500 x 375, noise added, JPEGs of 72 KB).
Official (main.py): every model and every candidate decodes, resizes and normalises every image again, candidates are
mixed from checkpoints that are loaded again, and are evaluated to the end; the individual models' accuracies are its
step 2. Ours (`soup.greedy`): the hold-out is decoded once, candidates are mixed from a running sum, and are given up as
soon as they can no longer join. Both read images with the same code and processes and join on > (strict), as main.py.
Ours is also measured without early rejection. Writes results/benchmarks/greedy.json and greedy.md.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from modelsoups import soup
from modelsoups.config.compose import load
from modelsoups.disk import provenance, storage
from modelsoups.miniature.images import render_set
from modelsoups.miniature.sets import CLASSES, TEMPLATES
from modelsoups.models.classifier import Classifier, build, load_clip, state_of, zeroshot_weights

OUT = Path(__file__).parents[1] / "results" / "benchmarks"
WIDE, HIGH = 500, 375
WORKERS = 2
BATCH = 64


class Encoded(Dataset[tuple[Tensor, int]]):
    """JPEG files -> uint8 pixels, as CLIP's preprocessing: bicubic to the shorter side, centre crop."""

    def __init__(self, folder: Path, side: int) -> None:
        self.folder, self.side = folder, side
        self.labels = json.loads((folder / "labels.json").read_text())

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.folder / f"{index}.jpg") as image:
            scale = self.side / min(image.size)
            size = tuple(round(s * scale) for s in image.size)
            small = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        left, top = (size[0] - self.side) // 2, (size[1] - self.side) // 2
        crop = small.crop((left, top, left + self.side, top + self.side))
        return torch.from_numpy(np.asarray(crop).copy()).permute(2, 0, 1), self.labels[index]


def make_images(folder: Path, count: int) -> None:
    """IconNet's hold-out at the size of photographs, with fine grain that survives JPEG as a photograph's does."""
    generator, labels = np.random.default_rng(0), []
    for (_, image_HWC, label), index in zip(render_set("holdout", 0), range(count), strict=False):
        large = Image.fromarray(image_HWC).resize((HIGH, HIGH), Image.Resampling.BICUBIC)
        canvas = np.asarray(large.resize((WIDE, HIGH)).copy(), dtype=np.int16)
        canvas[:, (WIDE - HIGH) // 2 : (WIDE + HIGH) // 2] = np.asarray(large)
        noisy = np.clip(canvas + generator.normal(0, 12, canvas.shape), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, "JPEG", quality=88)
        (folder / f"{index}.jpg").write_bytes(buffer.getvalue())
        labels.append(label)
    (folder / "labels.json").write_text(json.dumps(labels))


def make_ingredients(folder: Path, count: int) -> None:
    cfg = load([]).model
    model, clip = build(cfg, len(CLASSES)), load_clip(cfg)
    with torch.no_grad():
        model.encoder.load_state_dict(clip.model.visual.state_dict())
        model.head.weight.copy_(zeroshot_weights(clip, CLASSES, TEMPLATES))
        model.head.bias.zero_()
    start = state_of(model)
    for n in range(count):
        generator = torch.Generator().manual_seed(n)
        far = 0.05 + 0.25 * n / count
        state = {k: v + far * v.std(correction=0) * torch.randn(v.shape, generator=generator) for k, v in start.items()}
        save_file(state, folder / f"{n}.safetensors")


def prepared(model: Classifier, pixels_BCHW: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.mean, model.std))
    return (pixels_BCHW.float() / 255 - mean) / std


def loader(folder: Path, side: int) -> DataLoader[tuple[Tensor, int]]:
    return DataLoader(Encoded(folder, side), BATCH, num_workers=WORKERS)


# ---- the ways ----


def official(model: Classifier, paths: list[Path], images: Path) -> dict[str, Any]:
    """main.py's steps 2 and 4."""

    def accuracy(state: dict[str, Tensor]) -> float:
        model.load_state_dict(state)
        right = n = 0
        with torch.no_grad():
            for pixels, labels in loader(images, model.image_size):
                right += int((model(prepared(model, pixels)).argmax(dim=1) == labels).sum())
                n += len(labels)
        return right / n

    own = {path: accuracy(load_file(path)) for path in paths}
    order = sorted(own, key=lambda p: own[p])[::-1]
    members, best, params = [order[0]], own[order[0]], load_file(order[0])
    for path in order[1:]:
        new, k = load_file(path), len(members)
        potential = {key: params[key].clone() * (k / (k + 1.0)) + new[key].clone() * (1.0 / (k + 1)) for key in new}
        reached = accuracy(potential)
        if reached > best:
            members, best, params = [*members, path], reached, potential
    return {"chosen": [p.stem for p in members], "best": best, "images": (2 * len(paths) - 1) * len(own)}


def ours(model: Classifier, paths: list[Path], images: Path, early: bool = True) -> dict[str, Any]:
    begin = time.perf_counter()
    data = soup.Holdout(model, loader(images, model.image_size), lambda x: prepared(model, x), BATCH, early=early)
    decoding = time.perf_counter() - begin
    chosen = soup.greedy(paths, data, strict=True)
    facts = {"seen": data.seen, "skipped": data.skipped, "decoding_seconds": decoding}
    return {"chosen": [Path(p).stem for p in chosen.ingredients], "best": chosen.trace[-1]["best"] / len(data), **facts}


def forward_seconds(model: nn.Module, pixels: Tensor, batches: Iterator[Tensor]) -> float:
    begin = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            model(batch)
    return time.perf_counter() - begin


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--images", type=int, default=512)
    made.add_argument("--ingredients", type=int, default=16)
    args = made.parse_args()
    model = build(load([]).model, len(CLASSES)).eval()
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder, args.images)
        make_ingredients(folder, args.ingredients)
        paths = [folder / f"{n}.safetensors" for n in range(args.ingredients)]
        kilobytes = sum(f.stat().st_size for f in folder.glob("*.jpg")) / args.images / 1000
        ways = {
            "official": lambda: official(model, paths, folder),
            "ours": lambda: ours(model, paths, folder),
            "ours, no early rejection": lambda: ours(model, paths, folder, early=False),
        }
        for way, run in ways.items():
            begin = time.perf_counter()
            taken = run()
            found[way] = {"seconds": round(time.perf_counter() - begin, 2), **taken}
            print(way, found[way], flush=True)
        pixels = torch.cat([p for p, _ in loader(folder, model.image_size)])
        forward = forward_seconds(model, pixels, iter(prepared(model, pixels).split(BATCH)))
    write(found, args, forward / args.images, kilobytes)


def write(found: dict[str, dict[str, Any]], args: argparse.Namespace, forward: float, kilobytes: float) -> None:
    assert all(way["chosen"] == found["official"]["chosen"] for way in found.values()), "another choice"
    command = " ".join(["python benchmarks/greedy.py", *sys.argv[1:]])
    decode = found["ours"]["decoding_seconds"] / args.images
    made = provenance.record()
    facts = {"command": command, "forward_ms": 1e3 * forward, "decode_ms": 1e3 * decode, "jpeg_kb": kilobytes}
    storage.write_json(OUT / "greedy.json", {**facts, "ways": found, "provenance": made})
    lines = ["| way | seconds | x ours | forward passes | saved | chosen |", "|---|---|---|---|---|---|"]
    for way, r in found.items():
        seen = r.get("seen", (2 * args.ingredients - 1) * args.images)
        saved = f"{r['skipped']} ({100 * r['skipped'] / (r['skipped'] + seen):.0f}%)" if "skipped" in r else ""
        ratio = r["seconds"] / found["ours"]["seconds"]
        lines.append(f"| {way} | {r['seconds']} | {ratio:.1f} | {seen} | {saved} | {', '.join(r['chosen'])} |")
    text = f"`{command}` ({made['machine']}, commit {str(made['commit'])[:9]})\n\n" + "\n".join(lines) + "\n\n"
    text += (
        f"{args.images} JPEGs of {kilobytes:.0f} KB. An image costs {1e3 * decode:.2f} ms to read, decode and resize "
    )
    text += f"with {WORKERS} processes (their start included), and {1e3 * forward:.2f} ms of forward pass.\n"
    storage.write_text(OUT / "greedy.md", text)


if __name__ == "__main__":
    main()
