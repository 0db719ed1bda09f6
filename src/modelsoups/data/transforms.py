"""Image transforms: CLIP's evaluation preprocessing, the paper's augmentations (appendix J.2.1).

Each maps a PIL image to a PIL image of the model's input size; `models.classifier.normalise` later
normalises whole batches. torchvision and timm are imported only when a function needs them.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

Transform = Callable[[Image.Image], Image.Image]
STRONG = "rand-m15-n2"  # J.2.1: N=2, M=15; timm clips M at 10, as it did for the authors


@dataclass(frozen=True)
class View:
    """The square of an image that a model is evaluated on: resized (bicubic), then cropped to the centre.

    side: of the square, in pixels. resize: size of the shorter side before the crop or, with squash,
    of both sides, which changes the aspect ratio; None: `side`.
    """

    side: int
    resize: int | None = None
    squash: bool = False

    @property
    def name(self) -> str:
        """Return a short name for files, such as 360 or 518-of-550-squashed."""
        changes = self.changes()
        return f"{self.side}" + (f"-of-{self.resize}" if "resize" in changes else "") + "-squashed" * self.squash

    def changes(self) -> dict[str, Any]:
        """Return what differs from CLIP's view of the same side: {} if nothing does."""
        size = {"resize": self.resize} if self.resize not in (None, self.side) else {}
        return size | ({"squash": True} if self.squash else {})


def eval_crop(view: View) -> Transform:
    """Return an evaluation transform; View(side) is CLIP's: resize the shorter side, crop the centre."""
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    size = view.resize or view.side
    both_or_shorter = (size, size) if view.squash else size
    return Compose([Resize(both_or_shorter, InterpolationMode.BICUBIC), CenterCrop(view.side)])


def train_crop(
    aug: str,
    image_size: int,
    mean: Sequence[float],
    min_crop: float = 0.08,
    flip: float = 0.5,
    ratio: Sequence[float] = (3 / 4, 4 / 3),
) -> Transform:
    """Return the training transform named "minimal", "medium", "strong", "inception" or "rand-m{M}-n{N}".

    Minimal is open_clip's random crop of 90 to 100% of the area, without a flip. Inception is a
    random crop of min_crop to 100% of the area and a flip (Szegedy et al. 2015; J.2.2). The others
    are timm's training transform with that crop: medium with colour jitter 0.4, strong and rand-*
    with RandAugment, whose operations each have probability 0.5. mean (RGB, 0 to 1) is the colour of
    pixels that an operation leaves empty; flip is the probability of a horizontal flip; ratio is the
    smallest and largest aspect ratio (width / height) of a crop.
    """
    from timm.data import auto_augment
    from timm.data.transforms_factory import transforms_imagenet_train
    from torchvision.transforms import Compose, InterpolationMode, RandomHorizontalFlip, RandomResizedCrop

    colour, area, aspect = tuple(mean), (min_crop, 1.0), (ratio[0], ratio[1])
    if aug in ("minimal", "inception"):
        area = (0.9, 1.0) if aug == "minimal" else area
        crop = RandomResizedCrop(image_size, scale=area, ratio=aspect, interpolation=InterpolationMode.BICUBIC)
        return crop if aug == "minimal" else Compose([crop, RandomHorizontalFlip(flip)])
    policy = {"medium": None, "strong": STRONG}.get(aug, aug)
    crop_and_flip, change, _ = transforms_imagenet_train(
        image_size, scale=area, ratio=aspect, hflip=flip, mean=colour, auto_augment=policy, separate=True
    )
    steps = [*crop_and_flip.transforms, *change.transforms]
    for step in list(steps):
        if isinstance(step, auto_augment.RandAugment):
            if step.num_layers == 0:  # it does nothing and draws nothing
                steps.remove(step)
            for op in step.ops:  # timm's posterize asks for 0 bits if M <= 2; Pillow 13 rejects it
                op.aug_fn = posterize if op.aug_fn is auto_augment.posterize else op.aug_fn
    return Compose(steps)


def steps_of(transform: Transform) -> list[Any]:
    """Return the list of transforms in a torchvision Compose, or a list of one other transform."""
    return list(getattr(transform, "transforms", [transform]))


def posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    """Keep the highest `bits` bits of each channel, as timm does; black if `bits` is 0."""
    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits > 0 else Image.new(image.mode, image.size)


def to_uint8(image: Image.Image) -> Tensor:  # pixels_CHW
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def seed_sample(*key: object) -> None:
    """Seed Python's, NumPy's and torch's global generators, which augmentation uses, from `key`."""
    seed = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed >> 1)
