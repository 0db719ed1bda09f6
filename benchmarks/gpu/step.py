"""One training step on batches that are already there: images/s, share of the measured matmul rate, where time goes.

    python benchmarks/gpu/step.py --model ViT-B-32-quickgelu            # an H200, batches of 512
    python benchmarks/gpu/step.py --model iconclip --batch 64 --steps 5  # a smoke test on a CPU

The step is `Trainer.update`, with nothing replaced but the source of its batches. The baseline is the same step as the
official finetune.py computes it: float32, not compiled.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from modelsoups.config.compose import load
from modelsoups.config.schema import Config
from modelsoups.data.gpu import augment
from modelsoups.data.transforms import seed_sample, to_uint8, train_crop
from modelsoups.experiment.experiment import Experiment
from modelsoups.recipes.recipe import Recipe
from modelsoups.train import throughput
from modelsoups.train.device import staged
from modelsoups.train.trainer import Trainer, Workspace

RECIPE = {"lr": 3e-5, "weight_decay": 0.1, "epochs": 8, "label_smoothing": 0.1, "mixup": 0.2, "aug": "strong",
          "seed": 0, "warmup_steps": 500, "clip": 1.0}  # fmt: skip
PLAIN = ["finetune.precision=fp32", "finetune.compile=none"]
VARIANTS = {
    "float32, not compiled": PLAIN,
    "bf16": ["finetune.precision=bf16", "finetune.compile=none"],
    "bf16, compiled": ["finetune.precision=bf16", "finetune.compile=default"],
    "bf16, compiled, CUDA graphs": ["finetune.precision=bf16", "finetune.compile=reduce-overhead"],
    "bf16, compiled, deterministic": [
        "finetune.precision=bf16",
        "finetune.compile=default",
        "finetune.deterministic=true",
    ],
    "bf16, compiled, augmented on the GPU": [
        "finetune.precision=bf16",
        "finetune.compile=default",
        "finetune.augment=gpu",
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-32-quickgelu")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--steps", type=int, default=60, help="timed; a third of them go before")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    options = parser.parse_args()
    print("| step | images/s | against the first | MFU | data, forward, backward, optimizer | memory |")
    print("|---|---|---|---|---|---|")
    first = None
    for name in options.variants:
        images_per_second, seconds, mfu, memory = measure(options, VARIANTS[name])
        first = first or images_per_second
        total = sum(seconds.values())
        shares = ", ".join(f"{seconds.get(p, 0) / total:.0%}" for p in ("data", "forward", "backward", "optimizer"))
        print(f"| {name} | {images_per_second:,.0f} | {images_per_second / first:.2f}x | {mfu} | {shares} | {memory} |")


def measure(options: argparse.Namespace, overrides: list[str]) -> tuple[float, dict[str, float], str, str]:
    """images/s, seconds by phase, MFU and peak memory of the timed steps."""
    torch.compiler.reset()
    cfg = configured(options.model, overrides)
    recipe, train = Recipe(**RECIPE, batch_size=options.batch), images()
    experiment = Experiment(cfg)
    model = experiment.classifier(len(train.classes))
    trainer = Trainer(experiment.task, recipe, cfg.finetune, model, train, Workspace(Path("unused"), "benchmark"))
    cuda, clock, warm = trainer.device.cuda, trainer.metrics.clock, max(2, options.steps // 3)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    with trainer.device.determined():
        trainer.compiled = trainer.device.compiled(trainer.model.train())
        for step, batch in enumerate(source(trainer, warm + options.steps)):
            clock.mark("data")
            if step == warm:
                wait(cuda)
                clock.marks, begun = [], time.perf_counter()
                clock.mark("data")
            trainer.update([batch])
            trainer.step += 1
        wait(cuda)
        took = time.perf_counter() - begun
    images_per_second = options.batch * options.steps / took
    mfu, memory = "-", "-"
    if cuda:
        dtype = torch.bfloat16 if trainer.device.bf16 else torch.float32
        mfu = f"{images_per_second * trainer.metrics.flops / throughput.peak_flops(trainer.device.torch, dtype):.1%}"
        memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    return images_per_second, throughput.phases(clock.take()), mfu, memory


def configured(model: str, overrides: list[str]) -> Config:
    if model == "iconclip":
        return load(overrides)
    size = "model.image_size=336" if "336" in model else "model.image_size=224"
    return load(["experiment=imagenet", f"model.name={model}", "model.tag=null", size, *overrides])


def images() -> Any:
    """What the trainer asks of a training set."""

    class Images(SimpleNamespace):
        def __len__(self) -> int:
            return 1_255_167

    return Images(folder=Path("synthetic"), classes=[str(i) for i in range(1000)])


def source(trainer: Trainer, steps: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The same batch again and again, from pinned memory: crops, or images of 500 x 375 with a plan for them."""
    recipe, side = trainer.recipe, trainer.model.image_size
    generator = np.random.default_rng(0)
    labels_B = torch.from_numpy(generator.integers(0, 1000, recipe.batch_size))
    if trainer.device.augment == "gpu":
        image = Image.fromarray(generator.integers(0, 256, (375, 500, 3), dtype=np.uint8))
        crop, drawn = train_crop(recipe.aug, side, trainer.model.mean), []
        for i in range(recipe.batch_size):
            seed_sample(0, i)
            drawn.append(augment.draw(crop, image, side))
        batch: Any = augment.plan_batch([to_uint8(image)] * recipe.batch_size, drawn, side, trainer.model.mean)
    else:
        batch = torch.from_numpy(generator.integers(0, 256, (recipe.batch_size, 3, side, side), dtype=np.uint8))
    if trainer.device.cuda:
        batch, labels_B = batch.pin_memory(), labels_B.pin_memory()
    return staged(((batch, labels_B) for _ in range(steps)), trainer.device.torch)


def wait(cuda: bool) -> None:
    if cuda:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
