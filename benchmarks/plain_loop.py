"""The baseline of benchmarks/finetune.py: fine-tuning as the authors' finetune.py does it.

fp32, ImageFolder, PIL, torchvision's Compose to normalised floats, a DataLoader, AdamW with warm-up and cosine,
gradient clipping. Model, augmentation, mixup and smoothing are ours, so that both do the same work. DataParallel, which
with one GPU only passes calls on, is left out. As a script it trains one model of the miniature and ends:

    python benchmarks/plain_loop.py IMAGES INITIAL.safetensors RECIPE.json OUT.pt [--workers 2] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import transforms
from torchvision.datasets import ImageFolder

from modelsoups.config.compose import load
from modelsoups.data.transforms import train_crop
from modelsoups.models.classifier import Classifier, build
from modelsoups.recipes.recipe import Recipe
from modelsoups.tasks import image_targets
from modelsoups.train import optimizers

Batches = Iterable[tuple[Tensor, Tensor]]


def batches(folder: Path, model: Classifier, recipe: Recipe, workers: int) -> Batches:
    """(images_BCHW normalised, labels_B) of one epoch in random order."""
    finish = [transforms.ToTensor(), transforms.Normalize(model.mean, model.std)]
    crop = train_crop(recipe.aug, model.image_size, model.mean, recipe.min_crop, recipe.flip)
    images = ImageFolder(str(folder), transforms.Compose([crop, *finish]))
    pinned = torch.cuda.is_available()
    return torch.utils.data.DataLoader(
        images, recipe.batch_size, shuffle=True, num_workers=workers, drop_last=True, pin_memory=pinned
    )


class Loop:
    """The authors' training loop, one step at a time."""

    def __init__(self, model: Classifier, recipe: Recipe, total: int) -> None:
        self.model, self.recipe, self.total, self.step = model.train(), recipe, total, 0
        self.device = model.head.weight.device
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, recipe.lr, weight_decay=recipe.weight_decay)

    def update(self, images_BCHW: Tensor, labels_B: Tensor) -> None:
        recipe = self.recipe
        factor = optimizers.lr_factor(self.step, self.total, recipe.warmup_steps, recipe.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr * factor
        self.optimizer.zero_grad()
        images_BCHW, labels_B = images_BCHW.to(self.device), labels_B.to(self.device)
        targets_BC = image_targets.soft_targets(labels_B, self.model.head.out_features, recipe.label_smoothing)
        if recipe.mixup > 0:
            lam = image_targets.mixup_lambda(recipe.mixup, recipe.seed, self.step)
            images_BCHW, targets_BC = image_targets.mixup(images_BCHW, targets_BC, lam)
        loss = image_targets.softmax_loss(self.model(images_BCHW), targets_BC)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, recipe.clip)
        self.optimizer.step()
        self.step += 1
        if self.step % 20 == 0:
            print(f"step {self.step} of {self.total}, loss {loss.item():.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("images", "initial", "recipe", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe, state = Recipe(**json.loads(args.recipe.read_text())), load_file(args.initial)
    model = build(load().model, len(state["head.weight"]))
    model.load_state_dict(state)
    loader = batches(args.images, model, recipe, args.workers)
    loop = Loop(model, recipe, recipe.epochs * len(loader))  # type: ignore[arg-type]
    for _ in range(recipe.epochs):
        for images_BCHW, labels_B in loader:
            loop.update(images_BCHW, labels_B)
        torch.save(model.state_dict(), args.out)  # each epoch, as the authors' loop does


if __name__ == "__main__":
    main()
