"""Image transforms: CLIP's preprocessing for evaluation, the paper's augmentations for training (J.2.1).

All of them take a PIL image and give a PIL image of the model's size: pixels stay uint8 until a whole batch is
normalised (`evaluate.normalise`), which gives the same numbers as ToTensor and Normalize image by image. torchvision
and timm are imported where they are used: they take seconds, and most processes make no transform.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

if TYPE_CHECKING:
    from timm.data.auto_augment import RandAugment

Transform = Callable[[Image.Image], Image.Image]
STRONG = "rand-m15-n2"  # J.2.1: N=2, M=15; timm clips M at 10, as it did for the authors


def eval_crop(image_size: int) -> Transform:
    """OpenAI's preprocessing of CLIP: shorter side to image_size by PIL's bicubic, then the centre."""
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    return Compose([Resize(image_size, InterpolationMode.BICUBIC), CenterCrop(image_size)])


def train_crop(
    aug: str, image_size: int, mean: Sequence[float], min_crop: float = 0.08, flip: float = 0.5
) -> Transform:
    """The augmentation of a recipe: minimal, medium, strong or rand-m{M}-n{N}.

    Minimal is open_clip's crop of 90 to 100% of the area, without a flip. The others are timm's own training
    transform, its crop of min_crop (timm: 0.08) to 100% and its flip included: medium with colour jitter 0.4, strong
    and rand-* with RandAugment instead (each operation with probability 0.5). mean, 0 to 1, fills what is uncovered.
    """
    from timm.data.auto_augment import RandAugment
    from timm.data.transforms_factory import transforms_imagenet_train
    from torchvision.transforms import Compose, InterpolationMode, RandomResizedCrop

    if aug == "minimal":
        return RandomResizedCrop(image_size, scale=(0.9, 1.0), interpolation=InterpolationMode.BICUBIC)
    policy = {"medium": None, "strong": STRONG}.get(aug, aug)
    crop_and_flip, change, _ = transforms_imagenet_train(
        image_size, scale=(min_crop, 1.0), hflip=flip, mean=tuple(mean), auto_augment=policy, separate=True
    )
    steps = [*crop_and_flip.transforms, *change.transforms]
    for step in list(steps):
        if isinstance(step, RandAugment):
            _guard_posterize(step)
            if step.num_layers == 0:  # it would draw nothing and do nothing
                steps.remove(step)
    return Compose(steps)


def _guard_posterize(randaugment: RandAugment) -> None:
    """For M <= 2 timm posterizes to 0 bits, which Pillow 13 refuses; older ones return black, and so does this."""
    from timm.data import auto_augment

    for op in randaugment.ops:
        if op.aug_fn is auto_augment.posterize:
            op.aug_fn = posterize


def posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    """timm's posterize for any Pillow."""
    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits > 0 else Image.new(image.mode, image.size)


def to_uint8(image: Image.Image) -> Tensor:
    """pixels_CHW, uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def seed_sample(*key: object) -> None:
    """Make what the transforms draw next a function of `key` alone: (recipe seed, epoch, image).

    timm draws from `random` and NumPy, torchvision from torch, so all three are seeded.
    """
    seed = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed >> 1)
