"""Training batches: what a step sees is a function of (recipe seed, step), never of processes, order or resumption.

Legend: B images of a batch, N of the training set, C channels, H height, W width.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from modelsoups.core import training
from modelsoups.core.types import Recipe
from modelsoups.data.batched import Drawn, Planned, canvas_pixels, draw, plan
from modelsoups.data.shards import ShardSet
from modelsoups.data.transforms import Transform, seed_sample, to_uint8, train_crop
from modelsoups.parallel import cores

KEEP_DECODED = 64 * 2**20  # bytes of shards; decoded they are about ten times as large


@dataclass(frozen=True)
class Share:
    """The part of every batch that one of `ranks` processes trains on, in `parts` one after the other."""

    rank: int = 0
    ranks: int = 1
    parts: int = 1

    def of(self, index_B: Tensor) -> list[Tensor]:
        """The images of this rank, part by part. Image i of a batch and the i-th from its end, which mixup pairs,

        stay together and keep their places: mixing within the parts is mixing within the batch.
        """
        pieces = self.ranks * self.parts
        if pieces == 1:
            return [index_B]
        half, end = len(index_B) // (2 * pieces), len(index_B)
        mine = range(self.rank * self.parts, (self.rank + 1) * self.parts)
        return [torch.cat([index_B[p * half : (p + 1) * half], index_B[end - (p + 1) * half : end - p * half]])
                for p in mine]  # fmt: skip


WHOLE = Share()


def train_batches(
    train: ShardSet,
    recipe: Recipe,
    image_size: int,
    mean: tuple[float, ...],
    first: int,
    side_by_side: int,
    share: Share = WHOLE,
    augment: str = "cpu",
) -> Iterator[tuple[Tensor | Planned, Tensor]]:
    """(pixels_BCHW in uint8, labels_B) of every step of a run from step `first` on, in the parts of one rank.

    With augment=gpu the images come as they are, with a plan that makes those pixels of them on any device.

    A small set is decoded once a process and augmented in it. Images of a larger one are decoded and augmented in
    the cores that `side_by_side` runs leave free. Raises ValueError naming shard and key of a corrupt image.
    """
    on_gpu = augment == "gpu"
    kind = Undone if on_gpu else Augmented
    augmented = kind(str(train.folder), train.sha256, recipe, image_size, mean)
    processes = loader_processes(train, side_by_side)
    batches = _index_batches(len(train), recipe, first, share)
    loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
        augmented,
        batch_sampler=batches,
        num_workers=processes,
        collate_fn=functools.partial(_planned, image_size, mean) if on_gpu else None,
        pin_memory=torch.cuda.is_available(),  # so that it is copied beside the computation
    )
    try:
        yield from loader
    except ValueError as error:
        if not processes:
            raise
        last_line = str(error).strip().splitlines()[-1]  # PyTorch puts the trace of its process into the message
        raise ValueError(last_line.removeprefix("ValueError: ")) from error


def loader_processes(train: ShardSet, side_by_side: int) -> int:
    """Processes that decode for one run; 0: the run does it itself."""
    return 0 if train.bytes <= KEEP_DECODED else max(0, cores() // side_by_side - 1)


def _index_batches(images: int, recipe: Recipe, first: int, share: Share) -> Iterator[list[tuple[int, int]]]:
    """(epoch, index) of the images of each step's parts; the last, smaller batch of an epoch is dropped."""
    per_epoch = images // recipe.batch_size
    for epoch in range(first // per_epoch, recipe.epochs):
        order_N = training.epoch_order(images, recipe.seed, epoch)
        for batch in range(max(0, first - epoch * per_epoch), per_epoch):
            index_B = order_N[batch * recipe.batch_size : (batch + 1) * recipe.batch_size]
            for part in share.of(index_B):
                yield [(epoch, index) for index in part.tolist()]


@dataclass
class Augmented(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """(epoch, index) -> (augmented uint8 pixels_CHW, label). It opens what it needs in the process that uses it."""

    folder: str
    sha256: str
    recipe: Recipe
    image_size: int
    mean: tuple[float, ...]

    @functools.cached_property
    def train(self) -> ShardSet:
        return ShardSet(Path(self.folder))

    @functools.cached_property
    def crops(self) -> dict[str, Transform]:
        """The transform of each policy that the recipe takes."""
        recipe = self.recipe
        policies = {"stochastic": ("minimal", "medium", "strong"), "fix": ("strong", "minimal")}
        taken = policies.get(recipe.aug, (recipe.aug,))
        return {p: train_crop(p, self.image_size, self.mean, recipe.min_crop, recipe.flip) for p in taken}

    def policy(self, epoch: int) -> str:
        """Of an image whose random numbers were seeded: L.1's stochastic augmentation draws, L.2's fix-aug waits."""
        recipe = self.recipe
        if recipe.aug == "fix":
            return "minimal" if epoch == recipe.epochs - 1 else "strong"
        return random.choice(list(self.crops)) if recipe.aug == "stochastic" else recipe.aug

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = key
        small = self.train.bytes <= KEEP_DECODED
        image = decoded(self.folder, self.sha256)[index] if small else self.train.image(index)
        seed_sample(self.recipe.seed, epoch, index)
        return to_uint8(self.crops[self.policy(epoch)](image)), int(self.train.labels_N[index])


class Undone(Augmented):
    """(epoch, index) -> (decoded uint8 pixels_CHW, what is to be done with them, label)."""

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, index = key
        small = self.train.bytes <= KEEP_DECODED
        image = canvas_pixels(decoded(self.folder, self.sha256)[index] if small else self.train.image(index))
        seed_sample(self.recipe.seed, epoch, index)
        drawn = draw(self.crops[self.policy(epoch)], image, self.image_size)
        return to_uint8(image), drawn, int(self.train.labels_N[index])


def _planned(side: int, mean: tuple[float, ...], samples: list[tuple[Tensor, Drawn, int]]) -> tuple[Planned, Tensor]:
    images, drawn, labels = zip(*samples, strict=True)
    return plan(images, drawn, side, mean), torch.tensor(labels)


@functools.lru_cache(maxsize=1)
def decoded(folder: str, sha256: str) -> list[Image.Image]:
    """Every image of a small set, decoded once for all runs of a process; sha256 is part of the key."""
    train = ShardSet(Path(folder))
    return [train.image(i) for i in range(len(train))]
