"""Yields training batches that depend only on seed and step, not on process count or resuming.

Legend (last letters of tensor names): B batch, N training images, C channels, H height, W width.
"""

import contextlib
import functools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from modelsoups.data import order
from modelsoups.data.decoders import DECODERS, EncodedJpeg, Picture, augmented, raw
from modelsoups.data.gpu.augment import BatchPlan, canvas_pixels, draw, plan_batch
from modelsoups.data.order import WHOLE, Share
from modelsoups.data.shards import CorruptImage, ShardSet
from modelsoups.data.shared_images import Part, SharedImages
from modelsoups.data.transforms import Transform, seed_sample, train_crop
from modelsoups.recipes.recipe import Recipe
from modelsoups.workers.processes import cores

KEEP_DECODED = 64 * 2**20  # largest shards, in bytes, to cache decoded, at about ten times the size
POLICIES = {"stochastic": ("minimal", "medium", "strong"), "fix": ("strong", "minimal")}
NONE = -1  # instead of the index of a skipped image, for a sample that skipped none


@dataclass(frozen=True)
class Preprocessing:
    """Settings of image decoding and augmentation.

    mean (RGB, 0 to 1) is the colour of pixels that augmentation leaves empty. decoder is "pil",
    "turbo" or "gpu"; augment is "cpu" or "gpu". side_by_side: how many runs share the machine's
    cores. shared: the file by which these runs share decoded images, if they do.
    """

    image_size: int
    mean: tuple[float, ...]
    decoder: str = "pil"
    augment: str = "cpu"
    side_by_side: int = 1
    shared: Path | None = None


@dataclass
class Skipped:
    """The corrupt images that a training run has replaced by the next image; at most `limit`."""

    train: ShardSet
    limit: int = 0
    keys: list[str] = field(default_factory=list)

    def add(self, corrupt_B: Tensor) -> None:
        """Record a batch's corrupt images; raise ValueError if the run has more than `limit`."""
        for index in corrupt_B[corrupt_B != NONE].tolist():
            key = str(self.train.keys_N[index])
            if key in self.keys:  # recorded in an earlier epoch
                continue
            self.keys.append(key)
            where = self.train.where(index)
            if len(self.keys) > self.limit:
                raise ValueError(
                    f"{where} is corrupt, one more than finetune.skip_corrupt={self.limit} allows; "
                    f"before it {', '.join(self.keys[:-1])}; for each of these images: "
                    f"{self.train.way_out}"
                )
            count = f"corrupt image {len(self.keys)} of at most {self.limit}"
            print(f"finetune: {where} is corrupt and replaced by the next image ({count})", flush=True)


def train_batches(
    train: ShardSet,
    recipe: Recipe,
    preprocessing: Preprocessing,
    first: int,
    share: Share = WHOLE,
    skipped: Skipped | None = None,
) -> Iterator[tuple[Tensor | BatchPlan, Tensor]]:
    """Yield (images, labels) of one rank's micro-batches, from training step `first` on.

    Images are uint8 (B, C, H, W) or, with augment="gpu", a BatchPlan that computes them on the GPU.
    A large set is decoded by processes on the free cores, a small one once, in this process. Raises
    ValueError if more images are corrupt than `skipped` allows.
    """
    skipped = skipped or Skipped(train)
    processes = loader_processes(train, preprocessing.side_by_side)
    on_gpu = preprocessing.augment == "gpu"
    collate = functools.partial(_planned, preprocessing.image_size, preprocessing.mean)
    images = (Unaugmented if on_gpu else Augmented)(train, recipe, preprocessing, skipped.limit > 0)
    loader: DataLoader[Any] = DataLoader(
        images,
        batch_sampler=index_batches(len(train), recipe, first, share),
        num_workers=processes,
        collate_fn=collate if on_gpu else None,
        pin_memory=torch.cuda.is_available(),  # lets copies to the GPU overlap with computation
    )
    try:
        with images.progress(first) as reached:
            for batch, (pixels_BCHW, labels_B, corrupt_B) in enumerate(loader):
                skipped.add(corrupt_B)
                yield pixels_BCHW, labels_B
                reached(first + batch // share.parts + 1)
    except ValueError as error:
        if not processes:
            raise
        last_line = str(error).strip().splitlines()[-1]  # PyTorch puts a traceback before it
        raise ValueError(re.sub(r"^[\w.]+(Error|CorruptImage): ", "", last_line)) from error


@contextlib.contextmanager
def deaths_named() -> Iterator[None]:
    """In the with block, turn PyTorch's error for a killed DataLoader worker into a clear one."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise RuntimeError(
            "a process that decodes training images died (killed, or out of memory or /dev/shm); "
            "run the same command again to continue from the last checkpoint"
        ) from error


def loader_processes(train: ShardSet, side_by_side: int) -> int:
    """Return the number of DataLoader workers; 0 for a small set, which the run itself decodes."""
    return 0 if train.bytes <= KEEP_DECODED else max(0, cores() // side_by_side - 1)


def index_batches(images: int, recipe: Recipe, first: int = 0, share: Share = WHOLE) -> Iterator[list[tuple[int, int]]]:
    """Yield one list of (epoch, image index) per micro-batch of a rank; drop incomplete batches."""
    per_epoch, total = images // recipe.batch_size, recipe.total_steps(images)
    for epoch in range(first // per_epoch, recipe.begun_epochs(images)):
        order_N, done = order.epoch_order(images, recipe.shuffled_by, epoch), epoch * per_epoch
        for batch in range(max(0, first - done), min(per_epoch, total - done)):
            index_B = order_N[batch * recipe.batch_size : (batch + 1) * recipe.batch_size]
            for part in share.of(index_B):
                yield [(epoch, index) for index in part.tolist()]


@dataclass
class Augmented(Dataset[Any]):
    """A data set of (augmented uint8 image, label, corrupt index or -1) by (epoch, index).

    With `skips`, the next image replaces a corrupt one, whose index is then given instead of -1.
    """

    train: ShardSet
    recipe: Recipe
    preprocessing: Preprocessing
    skips: bool = False
    begin: float = 0.0  # where in a batch this run begins to read
    epoch: int = -1  # of place_N
    place_N: Tensor = field(default_factory=lambda: torch.empty(0))  # of each image in the epoch's order

    @functools.cached_property
    def crops(self) -> dict[str, Transform]:
        """Return the transforms that the recipe's augmentation uses, by name (such as minimal)."""
        recipe, side, mean = self.recipe, self.preprocessing.image_size, self.preprocessing.mean
        policies = POLICIES.get(recipe.aug, (recipe.aug,))
        return {p: train_crop(p, side, mean, recipe.min_crop, recipe.flip, recipe.crop_ratio) for p in policies}

    def policy(self, epoch: int) -> str:
        """Return the name of the augmentation for one image in this epoch.

        "stochastic" (appendix L.1) draws it; "fix" (L.2) is strong, in the last epoch minimal.
        """
        if self.recipe.aug == "stochastic":
            return random.choice(POLICIES["stochastic"])
        if self.recipe.aug == "fix":
            last = self.recipe.begun_epochs(len(self.train)) - 1
            return "minimal" if epoch == last else "strong"
        return self.recipe.aug

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[Any]:
        """Return the items of a batch. Runs that share images begin at different ones, to decode different ones."""
        turn = int(self.begin * len(keys))
        items = [self[key] for key in keys[turn:] + keys[:turn]]
        return items[len(keys) - turn :] + items[: len(keys) - turn]

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, index = key
        taken, image = self.readable(epoch, index)
        assert not isinstance(image, EncodedJpeg)  # the configuration refuses decode=gpu here
        seed_sample(self.recipe.seed, epoch, index)
        pixels_CHW = augmented(self.crops[self.policy(epoch)], image)
        return pixels_CHW, int(self.train.labels_N[taken]), NONE if taken == index else index

    def readable(self, epoch: int, index: int) -> tuple[int, Picture]:
        """Return (index, image); with `skips`, a corrupt image is replaced by the next good one."""
        for step in range(len(self.train)):
            taken = (index + step) % len(self.train)
            try:
                return taken, self.image(taken) if step else self.shared_image(epoch, index)
            except CorruptImage:
                if not self.skips:
                    raise
        folder = self.train.folder
        way_out = "move this folder away and run `modelsoups prepare`"
        raise CorruptImage(f"every image of {folder} is corrupt; {way_out}")

    @functools.cached_property
    def shared(self) -> SharedImages | None:
        """Return the images that this run shares; none for a small set, which each run keeps decoded."""
        path = self.preprocessing.shared
        return SharedImages(path) if path is not None and self.train.bytes > KEEP_DECODED else None

    def shared_image(self, epoch: int, index: int) -> Picture:
        """Return a decoded image, which other runs on this machine may have decoded."""
        if self.shared is None:
            return self.image(index)
        if epoch != self.epoch:
            order_N = order.epoch_order(len(self.train), self.recipe.shuffled_by, epoch)
            self.epoch, self.place_N = epoch, order_N.argsort()
        own: list[Picture] = []

        def decode() -> Sequence[Part]:
            own.append(self.image(index))
            return raw(own[0])

        data = self.shared.image(epoch, int(self.place_N[index]), decode)
        return own[0] if data is None else DECODERS[self.preprocessing.decoder](data, 0)

    @contextlib.contextmanager
    def progress(self, first: int) -> Iterator[Callable[[int], None]]:
        """Yield a function to call after each training step; it waits for runs far behind that share the images.

        first: the step at which this run starts.
        """
        if self.shared is None:
            yield lambda step: None
            return
        per_epoch = len(self.train) // self.recipe.batch_size
        member = self.shared.joined()
        self.begin = member.row / self.preprocessing.side_by_side % 1

        def images(step: int) -> int:
            return step // per_epoch * len(self.train) + step % per_epoch * self.recipe.batch_size

        member.reached(images(first), wait=False)
        try:
            yield lambda step: member.reached(images(step))
        finally:
            member.leave()

    def image(self, index: int) -> Picture:
        """Return a decoded image; a small data set's images are decoded once and kept in memory."""
        decoder = self.preprocessing.decoder
        if self.train.bytes > KEEP_DECODED:
            return self.train.decoded(index, DECODERS[decoder])
        kept = self.train.kept.setdefault(decoder, {})
        if index not in kept:
            kept[index] = self.train.decoded(index, DECODERS[decoder])
        return kept[index]


class Unaugmented(Augmented):
    """Like Augmented, but with the original image and, as a second item, its drawn augmentation."""

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, index = key
        taken, image = self.readable(epoch, index)
        if isinstance(image, EncodedJpeg):
            image = replace(image, where=self.train.where(taken), way_out=self.train.way_out)
        else:
            image = canvas_pixels(image)
        seed_sample(self.recipe.seed, epoch, index)
        drawn = draw(self.crops[self.policy(epoch)], image, self.preprocessing.image_size)
        return image, drawn, int(self.train.labels_N[taken]), NONE if taken == index else index


def _planned(side: int, mean: tuple[float, ...], samples: list[Any]) -> tuple[BatchPlan, Tensor, Tensor]:
    images, drawn, labels, corrupt = zip(*samples, strict=True)
    return plan_batch(images, drawn, side, mean), torch.tensor(labels), torch.tensor(corrupt)
