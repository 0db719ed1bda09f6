"""Fine-tuning against the authors' loop (benchmarks/plain_loop.py): loader alone, model alone, both, and a sweep.

    python benchmarks/finetune.py [loader share model sweep] [--device cuda] [--model clip_vit_b32] [--batch 512] ...

loader  images/s per core from JPEGs of 500 x 375 pixels and ImageNet's mean size (110 KB) to crops of 224 pixels: ours
        from shards with the original bytes, of `data.train_resize=256`, and of `data.train_format=raw` too; then from
        the decoded ones to batches for the GPU, which crops and augments them (`finetune.augment=gpu`)
share   images/s of four runs side by side, which decode JPEGs of 500 x 375 each for itself or with `finetune.share`
model   images/s of training on one batch over and over, and on the loader's
sweep   seconds of the miniature's fine-tuning from the command to its end, two models side by side

Ours and theirs take turns and do the same work: same model, same crops, same recipe. The images are synthetic: noise
with a photograph's 1/f spectrum, with shapes, so that a JPEG has as many code words as a photograph's. Everything is in
the page cache. Results go into results/benchmarks/finetune.{json,md}; a part that is not run keeps its earlier rows.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import plain_loop
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision import transforms
from torchvision.datasets import ImageFolder

from modelsoups.config.compose import load
from modelsoups.config.schema import Config
from modelsoups.data import loader, shards
from modelsoups.data.shared_images import shared_file
from modelsoups.data.storing import Storing, stored
from modelsoups.data.transforms import train_crop
from modelsoups.disk import provenance, storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.recipes.recipe import Recipe
from modelsoups.train import trainer

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT, QUALITY, CLASSES, DISTINCT, SIDE = 500, 375, 94, 50, 100, 224
EPOCHS = 4  # of the faster loader: as many seconds as one of theirs
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's
CROPS = {"90 to 100% of the area": "minimal", "8 to 100%, mirrored": "rand-m0-n0"}  # the paper's minimal, timm's
FORMS = {"full": "original bytes", "small": "data.train_resize=256", "raw": "data.train_format=raw of 256"}
Row = dict[str, Any]


# ---- images ----


def photograph(seed: int) -> bytes:
    """A JPEG of a random picture whose spectrum falls with the frequency, as photographs' do, with a few shapes."""
    random = np.random.default_rng(seed)
    frequency_HW = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None])
    frequency_HW[0, 0] = 1
    waves = random.normal(size=(3, *frequency_HW.shape, 2)) @ [1, 1j]
    waves /= frequency_HW ** np.array([1.1, 1.5, 1.5])[:, None, None]
    waves[:, 0, 0] = 0
    light, red, blue = (field / field.std() for field in np.fft.irfft2(waves, (HEIGHT, WIDTH)))
    image_HWC = np.stack([45 * light + 20 * red, 45 * light - 10 * blue, 45 * light - 15 * red + 15 * blue], -1)
    image = Image.fromarray((image_HWC + random.uniform(80, 150, 3)).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(12):
        x, y, half_x, half_y = random.integers([0, 0, 10, 10], [WIDTH, HEIGHT, 120, 120])
        colour = tuple(int(v) for v in random.integers([0, 0, 0, 60], [256, 256, 256, 160]))
        (draw.ellipse if random.random() < 0.5 else draw.rectangle)(
            [x - half_x, y - half_y, x + half_x, y + half_y], fill=colour
        )
    buffer = io.BytesIO()
    image.save(buffer, format="jpeg", quality=QUALITY)
    return buffer.getvalue()


def generate(home: Path, images: int) -> dict[str, float]:
    """The same images as an ImageFolder tree (folder/) and shards: original (full), resized (small), decoded (raw)."""
    pictures = [photograph(seed) for seed in range(DISTINCT)]
    forms = {"full": Storing(), "small": Storing(256), "raw": Storing(256, raw=True)}
    made = {name: [stored(data, "", form) for data in pictures] for name, form in forms.items()}
    for number in range(images):
        file = home / "folder" / f"{number % CLASSES:03d}" / f"{number:06d}.JPEG"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pictures[number % DISTINCT])
    for name, found in made.items():
        write_set(home / name, ((f"{i:06d}", *found[i % DISTINCT], i % CLASSES) for i in range(images)))
    return {name: statistics.mean(len(data) for data, _ in found) / 1000 for name, found in made.items()}


def write_set(folder: Path, samples: Iterator[shards.Sample]) -> None:
    entry = shards.write_shard(folder / "train-000000.tar", samples)
    facts = {"name": "train", "title": "Train", "role": "train", "templates": ["{}"], "projection": None}
    shards.finish_set(folder, {}, [entry], {**facts, "classes": [f"{c:03d}" for c in range(CLASSES)]})


def a_recipe(**changes: Any) -> Recipe:
    values = {"lr": 1e-5, "weight_decay": 0.1, "epochs": 1, "label_smoothing": 0.0, "mixup": 0.0, "aug": "minimal"}
    return Recipe(**{**values, "seed": 0, "batch_size": 64, "warmup_steps": 500, "clip": 1.0, **changes})


# ---- loader alone ----


def theirs(folder: Path, aug: str, workers: int) -> float:
    """images/s of one epoch through ImageFolder, PIL and Compose."""
    finish = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    images = ImageFolder(str(folder), transforms.Compose([train_crop(aug, SIDE, MEAN), *finish]))
    batches = torch.utils.data.DataLoader(images, 64, shuffle=True, num_workers=workers, drop_last=True)
    return rate(batches)


def ours(folder: Path, aug: str, workers: int, decoder: str, augment: str = "cpu") -> float:
    loader.cores = lambda: workers + 1  # one is left for training, which there is none of
    recipe = a_recipe(aug=aug, epochs=EPOCHS)
    preprocessing = loader.Preprocessing(SIDE, MEAN, decoder, augment)
    return rate(loader.train_batches(shards.ShardSet(folder), recipe, preprocessing, 0))


def rate(batches: Any) -> float:
    """images/s from the first batch to the last: the processes that decode are there by then."""
    batches = iter(batches)
    next(batches)
    begin, images = time.perf_counter(), 0
    for _, labels_B in batches:
        images += len(labels_B)
    return images / (time.perf_counter() - begin)


def loader_rows(home: Path, args: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    for crop, aug in CROPS.items():
        plain = functools.partial(theirs, home / "folder", aug, args.workers)
        ways: dict[str, Callable[[], float]] = {"ImageFolder, PIL, Compose": plain}
        for decoder in ("turbo", "pil"):
            for name, form in FORMS.items():
                ways[f"ours, {form}, decode={decoder}"] = functools.partial(
                    ours, home / name, aug, args.workers, decoder
                )
        way = functools.partial(ours, home / "raw", aug, args.workers, "turbo", "gpu")
        ways[f"ours, {FORMS['raw']}, augment=gpu, up to the copy to the device"] = way
        speeds = in_turns(ways, args.rounds)
        rows += table("loader", f"crops of {crop}", speeds, args.workers)
    return rows


def in_turns(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of each way over rounds in which every way has its turn."""
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, measured in ways.items():
            speeds[way].append(measured())
            print(f"  {way}: {speeds[way][-1]:,.1f}", flush=True)
    return {way: statistics.median(s) for way, s in speeds.items()}


def table(part: str, what: str, speeds: dict[str, float], cores: int, inverse: bool = False) -> list[Row]:
    """A row a way; the ratio to the first, above 1 where it is better."""
    base = next(iter(speeds.values()))
    ratios = {way: base / s if inverse else s / base for way, s in speeds.items()}
    return [
        {"part": part, "what": what, "way": way, "value": s / cores, "ratio": ratios[way]} for way, s in speeds.items()
    ]


# ---- four loaders side by side ----


def share_rows(home: Path, args: argparse.Namespace) -> list[Row]:
    """images/s of four runs together, each with the draws of its own seed, with and without finetune.share."""

    def separate(aug: str) -> float:
        return four(home / "full", aug, None)

    def shared(aug: str) -> float:
        with shared_file(4 * 64) as path:
            return four(home / "full", aug, path)

    rows: list[Row] = []
    for crop, aug in CROPS.items():
        ways = {"four loaders": functools.partial(separate, aug), "finetune.share": functools.partial(shared, aug)}
        rows += table("share", f"crops of {crop}", in_turns(ways, args.rounds), 1)
    return rows


def four(folder: Path, aug: str, shared: Path | None) -> float:
    """images/s of four loaders from the start of the first to the end of the last."""
    forked = multiprocessing.get_context("fork")
    counts = forked.SimpleQueue()
    processes = [forked.Process(target=one_of_four, args=(folder, aug, seed, shared, counts)) for seed in range(4)]
    begin = time.perf_counter()
    for process in processes:
        process.start()
    images = sum(counts.get() for _ in processes)
    seconds = time.perf_counter() - begin
    for process in processes:
        process.join()
    return images / seconds


def one_of_four(folder: Path, aug: str, seed: int, shared: Path | None, counts: Any) -> None:
    loader.cores = lambda: 1  # it decodes in this process
    torch.set_num_threads(1)
    how = loader.Preprocessing(SIDE, MEAN, "turbo", side_by_side=4, shared=shared)
    recipe = a_recipe(aug=aug, seed=seed, order_seed=0)
    counts.put(sum(len(labels_B) for _, labels_B in loader.train_batches(shards.ShardSet(folder), recipe, how, 0)))


# ---- the model, alone and with the loader ----


def model_rows(home: Path, args: argparse.Namespace) -> list[Row]:
    set_options = [f"model={args.model}", "model.tag=null", f"finetune.threads={torch.get_num_threads()}"]
    cfg = load(["experiment=imagenet", f"runs={home / 'run'}", *set_options, "finetune.log_every=1", *args.options])
    recipe = a_recipe(batch_size=args.batch, epochs=10**6)
    rows = []
    for what, folder in (("one batch over and over", None), ("with the loader", "small")):
        ways = {
            "the authors' loop": lambda f=folder: plain_training(cfg, home, recipe, f is not None, args),
            "ours": lambda f=folder: our_training(cfg, home, recipe, f is not None, args),
        }
        rows += table("model", f"{args.model}, batch {args.batch}, {what}", in_turns(ways, args.rounds), 1)
    return rows


def plain_training(cfg: Config, home: Path, recipe: Recipe, real: bool, args: argparse.Namespace) -> float:
    model = Experiment(cfg).classifier(CLASSES)
    loop = plain_loop.Loop(model, recipe, 10**6)
    source: Any = plain_loop.batches(home / "folder", model, recipe, args.workers)
    if not real:
        source = [(torch.randn(args.batch, 3, SIDE, SIDE), torch.arange(args.batch) % CLASSES)]
    begin = 0.0
    while loop.step < args.warm + args.steps:
        for images_BCHW, labels_B in source:
            if loop.step == args.warm:
                begin = now()
            loop.update(images_BCHW, labels_B)
            if loop.step == args.warm + args.steps:
                break
    return args.steps * args.batch / (now() - begin)


class Enough(Exception):
    pass


def our_training(cfg: Config, home: Path, recipe: Recipe, real: bool, args: argparse.Namespace) -> float:
    """images/s of the real Trainer from its step `warm` on, by the clock outside it."""
    times: list[float] = []

    def advance(images: float, resumed: bool = False) -> None:
        if not resumed:
            times.append(now() if len(times) + 1 in (args.warm, args.warm + args.steps) else 0.0)
            if len(times) == args.warm + args.steps:
                raise Enough

    def synthetic(*_: Any, **__: Any) -> Iterator[tuple[Tensor, Tensor]]:
        pixels_BCHW = torch.randint(0, 256, (args.batch, 3, SIDE, SIDE), dtype=torch.uint8)
        while True:
            yield pixels_BCHW, torch.arange(args.batch) % CLASSES

    before = trainer.advance, trainer.train_batches
    trainer.advance = advance
    loader.cores = lambda: args.workers + 1
    if not real:
        trainer.train_batches = synthetic
    try:
        train, workspace = shards.ShardSet(home / "small"), trainer.Workspace(home / "run", "")
        experiment = Experiment(cfg)
        model = experiment.classifier(len(train.classes))
        trainer.Trainer(experiment.task, recipe, cfg.finetune, model, train, workspace).train()
    except Enough:
        pass
    finally:
        trainer.advance, trainer.train_batches = before
    return args.steps * args.batch / (times[-1] - times[args.warm - 1])


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


# ---- the miniature's sweep ----


def sweep_rows(home: Path, args: argparse.Namespace) -> list[Row]:
    """Two models of the miniature's draw for one and for three epochs, and from that all 12 with their 62 epochs."""
    options = [f"data.dir={args.data or home / 'iconnet'}", f"runs={home / 'runs'}/${{name}}", "sweep.count=2"]
    command("modelsoups", "prepare", *options)
    command("modelsoups", "heads", *options)
    cfg = load(options)
    as_folder(shards.ShardSet(Path(cfg.data.dir) / "train"), home / "icons")
    seconds: dict[str, dict[int, float]] = {way: {} for way in ("side by side", "one by one", "ours")}
    for epochs in (1, 3):
        named = [*options, f"name=e{epochs}", f"recipe.epochs={epochs}"]
        shutil.copytree(home / "runs" / "miniature", home / "runs" / f"e{epochs}")
        command("modelsoups", "sweep", *named)
        draw = [r["recipe"] for r in storage.read_jsonl(load(named).run.draw)]
        initial = load(named).run.head("lp") / "model.safetensors"
        for way, at_once in (("side by side", 2), ("one by one", 1)):
            seconds[way][epochs] = plain_sweep(home, draw, initial, at_once)
        seconds["ours"][epochs] = timed(lambda n=named: command("modelsoups", "finetune", *n))
        print(epochs, seconds, flush=True)
    labels = {
        "side by side": "the authors' loop, two models side by side",
        "one by one": "the authors' loop, one by one",
    }
    whole = {labels.get(way, way): extrapolated(s[1], s[3], way != "ours") for way, s in seconds.items()}
    three = {labels.get(way, way): s[3] for way, s in seconds.items()}
    what = "seconds of {}"
    return [
        *table("sweep", what.format("2 models of 3 epochs, measured"), three, 1, inverse=True),
        *table("sweep", what.format("12 models, 62 epochs together, extrapolated"), whole, 1, inverse=True),
    ]


def extrapolated(one: float, three: float, a_start_each: bool) -> float:
    """Seconds of 12 models with 62 epochs, from two models of one and of three epochs each.

    An epoch costs the same everywhere; the rest is start and end, which the plain loop has for each pair of models.
    """
    epoch = (three - one) / 4  # of the machine
    return 62 * epoch + (one - 2 * epoch) * (6 if a_start_each else 1)


def as_folder(train: shards.ShardSet, folder: Path) -> None:
    """The images as the files of an ImageFolder."""
    for i, label in enumerate(train.labels_N.tolist()):
        file = folder / f"{label:03d}" / f"{i:06d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(train.read(i))


def plain_sweep(home: Path, draw: list[Row], initial: Path, at_once: int) -> float:
    """Seconds of the authors' loop for each recipe in a process of its own, so many at once.

    Alone a model has one core to train and one to decode; beside another one it has one core for both.
    """

    def start(number: int) -> subprocess.Popen[bytes]:
        file = home / f"recipe-{number}.json"
        file.write_text(json.dumps(draw[number]))
        script = [str(ROOT / "benchmarks" / "plain_loop.py"), str(home / "icons"), str(initial), str(file)]
        layout = ["--workers", "0" if at_once > 1 else "1"]
        words = [sys.executable, *script, str(home / f"{number}.pt"), *layout]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL)

    def everything() -> None:
        for first in range(0, len(draw), at_once):
            processes = [start(n) for n in range(first, min(first + at_once, len(draw)))]
            if any(p.wait() for p in processes):
                raise RuntimeError("plain_loop.py failed")

    return timed(everything)


def command(*words: str) -> None:
    subprocess.run([sys.executable, "-m", *words], check=True, stdout=subprocess.DEVNULL)


def timed(work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


# ---- report ----

PARTS = {"loader": loader_rows, "share": share_rows, "model": model_rows, "sweep": sweep_rows}
UNITS = {"loader": "images/s per core", "share": "images/s", "model": "images/s", "sweep": "seconds"}


def write(part: str, rows: list[Row], facts: Row) -> None:
    out = ROOT / "results" / "benchmarks"
    file = out / "finetune.json"
    kept: dict[str, Row] = storage.read_json(file) if file.exists() else {}
    kept[part] = {**facts, "rows": rows, "provenance": provenance.record()}
    storage.write_json(file, kept)
    lines = []
    for name, content in kept.items():
        made = content["provenance"]
        commit, machine = made["commit"], made["machine"]
        lines += [f"## {name}\n", f"`{content['command']}`, commit {commit}, {machine}\n"]
        lines += [f"| | | {UNITS[name]} | ratio |", "|---|---|---|---|"]
        lines += [f"| {r['what']} | {r['way']} | {r['value']:,.1f} | {r['ratio']:.2f} |" for r in content["rows"]]
        lines.append("")
    storage.write_text(out / "finetune.md", "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help="of loader, share, model, sweep; all of them by default")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--model", default="clip_vit_b32", help="a file of conf/model")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--warm", type=int, default=1, help="steps before the clock starts, at least 1")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2, help="processes that decode")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, help="the miniature's shards, if they are there already")
    parser.add_argument("--options", nargs="*", default=[], help="overrides of ours: finetune.compile=off")
    args = parser.parse_args()
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif not torch.cuda.is_available():
        raise SystemExit("--device cuda: there is none")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        words = [word for word in sys.argv[1:] if word not in ("--data", str(args.data))]  # no place of this machine
        facts: Row = {"command": " ".join(["python benchmarks/finetune.py", *words])}
        chosen = args.parts or list(PARTS)
        if set(chosen) & {"loader", "share", "model"}:
            facts["kilobytes"] = generate(home, args.images)
        for part in chosen:
            write(part, PARTS[part](home, args), facts)
    print((ROOT / "results" / "benchmarks" / "finetune.md").read_text())


if __name__ == "__main__":
    main()
