"""A soup of BatchNorm networks, with averaged and with re-estimated statistics: `python benchmarks/batchnorm.py`.

torchvision's ResNet-18 with a quarter of its channels, without the stem's reductions (as for CIFAR), is
trained on IconNet's rendered training images of 20 classes for some epochs, then fine-tuned several times from there
with different seeds and learning rates. Their uniform soup is scored on the hold-out with the averaged running
statistics and with those that one pass over the training images gives. Writes
results/benchmarks/batchnorm.json and batchnorm.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from modelsoups import runs, soup
from modelsoups.data.iconnet.sets import render_set

OUT = Path(__file__).parents[1] / "results" / "benchmarks"
CLASSES = 20


class Narrow(ResNet):
    """ResNet-18 at 16, 32, 64 and 128 channels, without the stem's reductions."""

    def __init__(self) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=CLASSES)
        self.inplanes = 16
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.maxpool = nn.Identity()
        layers = [(16, 2), (32, 2), (64, 2), (128, 2)]
        made = [self._make_layer(BasicBlock, width, 2, stride) for width, stride in layers]
        self.layer1, self.layer2, self.layer3, self.layer4 = made
        self.fc = nn.Linear(128, CLASSES)


def images(name: str) -> tuple[Tensor, Tensor]:
    """pixels_NCHW (floats about 0) and labels of a set's first classes."""
    kept = [(image, label) for _, image, label in render_set(name, 0) if label < CLASSES]
    pixels_NHWC = torch.stack([torch.from_numpy(image) for image, _ in kept])
    return (pixels_NHWC.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.28, torch.tensor([label for _, label in kept])


def batches(data: tuple[Tensor, Tensor], seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(len(data[1]), generator=torch.Generator().manual_seed(seed))
    for index_B in order.split(64):
        if len(index_B) > 1:
            yield data[0][index_B], data[1][index_B]


def trained(
    start: dict[str, Tensor] | None, data: tuple[Tensor, Tensor], seed: int, lr: float, epochs: int
) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    model = Narrow()
    if start is not None:
        model.load_state_dict(start)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * (-(-len(data[1]) // 64)))
    model.train()
    for epoch in range(epochs):
        for x_BCHW, labels_B in batches(data, 1000 * seed + epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(x_BCHW), labels_B).backward()
            optimizer.step()
            schedule.step()
    return {k: v.clone() for k, v in model.state_dict().items()}


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--epochs", type=int, default=8, help="of the model that all begin with")
    made.add_argument("--tuning", type=int, default=4, help="epochs of each fine-tuning")
    made.add_argument("--rates", type=float, nargs="+", default=[0.05, 0.1, 0.2, 0.1, 0.05])
    args = made.parse_args()
    begin = time.perf_counter()
    train, holdout = images("train"), images("holdout")
    start = trained(None, train, 0, 0.1, args.epochs)
    states = {f"{n}": trained(start, train, n, lr, args.tuning) for n, lr in enumerate(args.rates, 1)}
    data = soup.Holdout(Narrow(), [holdout])
    own = [(data.count(state)[0] or 0) / len(data) for state in [start, *states.values()]]
    chosen = soup.uniform(states)
    fresh = soup.reestimate(soup.mixed(chosen, states), data, batches(train, 0))
    command = " ".join(["python benchmarks/batchnorm.py", *sys.argv[1:]])
    facts = {
        "command": command,
        "start": own[0],
        "ingredients": own[1:],
        "soup with averaged statistics": fresh.before / fresh.n,
        "soup with re-estimated statistics": fresh.after / fresh.n,
        "n": fresh.n,
        "seconds": round(time.perf_counter() - begin),
    }
    print(facts)
    runs.write_json(OUT / "batchnorm.json", {**facts, "provenance": runs.provenance()})
    lines = [f"`{command}`", "", f"| | right of {fresh.n} hold-out images ({CLASSES} classes) |", "|---|---|"]
    lines += [f"| the model that all begin with | {100 * own[0]:.1f}% |"]
    lines += [
        f"| ingredient, learning rate {lr:g} | {100 * a:.1f}% |" for lr, a in zip(args.rates, own[1:], strict=True)
    ]
    lines += [f"| their soup, averaged statistics | {100 * fresh.before / fresh.n:.1f}% |"]
    lines += [f"| their soup, re-estimated statistics | {100 * fresh.after / fresh.n:.1f}% |"]
    runs.write_text(OUT / "batchnorm.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
