"""Training batches: what a step sees is a function of (recipe seed, step), never of processes, order or resumption.

Legend: B images of a batch, N of the training set, C channels, H height, W width.
"""

from __future__ import annotations

import contextlib
import functools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelsoups.data import order
from modelsoups.data.decoders import DECODERS, Encoded, Picture, augmented
from modelsoups.data.gpu.augment import Drawn, Planned, canvas_pixels, draw, plan
from modelsoups.data.shards import CorruptImage, ShardSet
from modelsoups.data.transforms import Transform, seed_sample, train_crop
from modelsoups.recipes.recipe import Recipe
from modelsoups.workers.processes import cores

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
NONE = -1  # index of the corrupt image behind a sample that has none


@dataclass
class Skipped:
    """Corrupt images that a run has met; each was replaced by the one after it in the set. ValueError above `limit`."""

    train: ShardSet
    limit: int = 0
    keys: list[str] = field(default_factory=list)

    def add(self, corrupt_B: Tensor) -> None:
        for index in corrupt_B[corrupt_B != NONE].tolist():
            key = str(self.train.keys_N[index])
            if key in self.keys:  # in an earlier epoch
                continue
            self.keys.append(key)
            if len(self.keys) > self.limit:
                raise ValueError(
                    f"{self.train.where(index)} is corrupt, one more than finetune.skip_corrupt={self.limit} after "
                    f"{', '.join(self.keys[:-1])}; delete those shards, then run `modelsoups prepare`"
                )
            print(
                f"finetune: {self.train.where(index)} is corrupt; training takes the image after it "
                f"({len(self.keys)} of at most {self.limit})",
                flush=True,
            )


def train_batches(
    train: ShardSet,
    recipe: Recipe,
    image_size: int,
    mean: tuple[float, ...],
    first: int,
    side_by_side: int,
    share: Share = WHOLE,
    augment: str = "cpu",
    decoder: str = "pil",
    skipped: Skipped | None = None,
) -> Iterator[tuple[Tensor | Planned, Tensor]]:
    """(pixels_BCHW in uint8, labels_B) of every step of a run from step `first` on, in the parts of one rank.

    With augment=gpu the images come as they are, with a plan that makes those pixels of them on any device.

    A small set is decoded once a process and augmented in it. Images of a larger one are decoded and augmented in
    the cores that `side_by_side` runs leave free. decoder is one of `data.decode`. Raises ValueError naming shard and
    key of a corrupt image, or of one more than `skipped` takes.
    """
    skipped = skipped or Skipped(train)
    on_gpu = augment == "gpu"
    kind = Undone if on_gpu else Augmented
    samples = kind(str(train.folder), train.sha256, recipe, image_size, mean, decoder, skipped.limit > 0)
    processes = loader_processes(train, side_by_side)
    batches = _index_batches(len(train), recipe, first, share)
    loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=processes,
        collate_fn=functools.partial(_planned, image_size, mean) if on_gpu else None,
        pin_memory=torch.cuda.is_available(),  # so that it is copied beside the computation
    )
    try:
        for pixels_BCHW, labels_B, corrupt_B in loader:
            skipped.add(corrupt_B)
            yield pixels_BCHW, labels_B
    except ValueError as error:
        if not processes:
            raise
        last_line = str(error).strip().splitlines()[-1]  # PyTorch puts the trace of its process into the message
        raise ValueError(re.sub(r"^[\w.]+(Error|CorruptImage): ", "", last_line)) from error


@contextlib.contextmanager
def deaths_named() -> Iterator[None]:
    """Say in one line that a process of train_batches died; PyTorch raises that anywhere in the program."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise RuntimeError(
            "a process that decodes training images died (killed, or out of memory or /dev/shm); run the same "
            "command again to continue from the last checkpoint"
        ) from error


def loader_processes(train: ShardSet, side_by_side: int) -> int:
    """Processes that decode for one run; 0: the run does it itself."""
    return 0 if train.bytes <= KEEP_DECODED else max(0, cores() // side_by_side - 1)


def _index_batches(images: int, recipe: Recipe, first: int, share: Share) -> Iterator[list[tuple[int, int]]]:
    """(epoch, index) of the images of each step's parts; the last, smaller batch of an epoch is dropped."""
    per_epoch = images // recipe.batch_size
    for epoch in range(first // per_epoch, recipe.epochs):
        order_N = order.epoch_order(images, recipe.seed, epoch)
        for batch in range(max(0, first - epoch * per_epoch), per_epoch):
            index_B = order_N[batch * recipe.batch_size : (batch + 1) * recipe.batch_size]
            for part in share.of(index_B):
                yield [(epoch, index) for index in part.tolist()]


@dataclass
class Augmented(torch.utils.data.Dataset[tuple[Tensor, int, int]]):
    """(epoch, index) -> (augmented uint8 pixels_CHW, label, NONE). It opens what it needs in the process that uses it.

    With `skips`, a corrupt image is replaced by the one after it, and its index stands in the place of NONE.
    """

    folder: str
    sha256: str
    recipe: Recipe
    image_size: int
    mean: tuple[float, ...]
    decoder: str = "pil"
    skips: bool = False

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

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int, int]:
        epoch, index = key
        taken, image = self.readable(index)
        assert not isinstance(image, Encoded)  # the configuration refuses that
        seed_sample(self.recipe.seed, epoch, index)
        pixels_CHW = augmented(self.crops[self.policy(epoch)], image)
        return pixels_CHW, int(self.train.labels_N[taken]), NONE if taken == index else index

    def readable(self, index: int) -> tuple[int, Picture]:
        """An image and its index, which is a later one for a corrupt image when those are skipped."""
        for step in range(len(self.train)):
            taken = (index + step) % len(self.train)
            try:
                return taken, self.image(taken)
            except CorruptImage:
                if not self.skips:
                    raise
        raise CorruptImage(f"every image of {self.folder} is corrupt")

    def image(self, index: int) -> Picture:
        if self.train.bytes > KEEP_DECODED:
            return self.train.decoded(index, DECODERS[self.decoder])
        kept = decoded(self.folder, self.sha256, self.decoder)
        if index not in kept:
            kept[index] = self.train.decoded(index, DECODERS[self.decoder])
        return kept[index]


class Undone(Augmented):
    """(epoch, index) -> (uint8 pixels_CHW or Encoded, what is to be done with them, label, NONE or as in Augmented)."""

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, index = key
        taken, image = self.readable(index)
        image = replace(image, where=self.train.where(taken)) if isinstance(image, Encoded) else canvas_pixels(image)
        seed_sample(self.recipe.seed, epoch, index)
        drawn = draw(self.crops[self.policy(epoch)], image, self.image_size)
        return image, drawn, int(self.train.labels_N[taken]), NONE if taken == index else index


def _planned(
    side: int, mean: tuple[float, ...], samples: list[tuple[Tensor | Encoded, Drawn, int, int]]
) -> tuple[Planned, Tensor, Tensor]:
    images, drawn, labels, corrupt = zip(*samples, strict=True)
    return plan(images, drawn, side, mean), torch.tensor(labels), torch.tensor(corrupt)


@functools.lru_cache(maxsize=1)
def decoded(folder: str, sha256: str, decoder: str) -> dict[int, Picture]:
    """The decoded images of a small set, kept for all runs of a process; sha256 is part of the key."""
    return {}
