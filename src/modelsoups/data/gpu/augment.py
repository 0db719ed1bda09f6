"""Augmentation of a whole batch on the GPU: `finetune.augment=gpu`.

The processes that decode draw what is to happen with an image, and the GPU does it. What is drawn comes from the very
transforms of `transforms.train_crop` at the same random state, so that an image gets the same crop, mirroring and
operations as with `augment=cpu`; `pixels` then computes what PIL computes, within rounding.

Legend: B images, C = 3 channels, H height, W width, N drawn operations of a batch.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import auto_augment
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision import transforms

from modelsoups.data.decoders import Encoded, Picture, decoded_on
from modelsoups.data.gpu import operations as pixels
from modelsoups.data.transforms import Transform, to_uint8

LARGEST = 512  # pixels of a side: larger images are shrunk to it before the crop, or the others of a batch would carry
# their margins to the GPU
JITTER = ("Brightness", "Contrast", "Color")  # torchvision's numbers of them


@dataclass(frozen=True)
class Operation:
    """One operation of `pixels` on one image: timm's name and argument, or the six numbers of an affine map."""

    name: str
    arguments: tuple[float, ...] = (0.0,)
    bicubic: bool = False


@dataclass
class Drawn:
    """What one image is to go through: a crop (top, left, height, width) of it, resized, mirrored, changed."""

    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    bicubic: bool = True
    flip: bool = False
    operations: list[Operation] = field(default_factory=list)


# ---- drawing, on the CPU ----


def draw(transform: Transform, image: Picture, side: int) -> Drawn:
    """Take from `random`, NumPy and torch what transform(image) would take from them, and note what it would do.

    Of the image (pixels_CHW when a tensor) only the size counts. Raises TypeError for a step that `pixels` lacks.
    """
    drawn = Drawn()
    if isinstance(image, Encoded):
        image = torch.empty(3, *canvas_size(image.height, image.width), device="meta")
    steps = transform.transforms if isinstance(transform, transforms.Compose) else [transform]
    for step in steps:
        if isinstance(step, RandomResizedCropAndInterpolation):
            drawn.box = step.get_params(image, step.scale, step.ratio)
            chosen = step.interpolation
            mode = random.choice(chosen) if isinstance(chosen, tuple) else chosen
            drawn.bicubic = mode in (Image.Resampling.BICUBIC, transforms.InterpolationMode.BICUBIC)
        elif isinstance(step, transforms.RandomResizedCrop):
            drawn.box = step.get_params(image, list(step.scale), list(step.ratio))
            drawn.bicubic = step.interpolation == transforms.InterpolationMode.BICUBIC
        elif isinstance(step, transforms.RandomHorizontalFlip):
            drawn.flip = bool(torch.rand(1) < step.p)
        elif isinstance(step, auto_augment.RandAugment):
            drawn.operations += _noting(step, side)([])
        elif isinstance(step, transforms.ColorJitter):
            order, *factors = step.get_params(step.brightness, step.contrast, step.saturation, step.hue)
            drawn.operations += [Operation(JITTER[i], (factors[i],)) for i in order.tolist() if i < len(JITTER)]
        else:
            raise TypeError(f"finetune.augment=gpu does not know {type(step).__name__}; use finetune.augment=cpu")
    return drawn


@functools.lru_cache(maxsize=16)
def _noting(step: auto_augment.RandAugment, side: int) -> auto_augment.RandAugment:
    """A RandAugment whose operations draw as before, and add themselves to the list that they get for an image."""
    noting = copy.copy(step)
    noting.ops = [copy.copy(op) for op in step.ops]
    for op in noting.ops:
        op.aug_fn = functools.partial(_note, op.name, side)
    return noting


def _note(name: str, side: int, noted: list[Operation], argument: float = 0.0, **options: Any) -> list[Operation]:
    if name not in pixels.AFFINE:
        return [*noted, Operation(name, (float(argument),))]
    mode = auto_augment._interpolation(options)  # which draws, too
    return [*noted, Operation("affine", pixels.affine_matrix(name, argument, side), mode == Image.Resampling.BICUBIC)]


def canvas_size(height: int, width: int) -> tuple[int, int]:
    """Of an image, or of a smaller one whose longer side is LARGEST."""
    longer = max(height, width, LARGEST)
    return max(1, round(height * LARGEST / longer)), max(1, round(width * LARGEST / longer))


def canvas_pixels(image: Image.Image | Tensor) -> Tensor:
    """uint8 pixels_CHW of a decoded image, of canvas_size."""
    pixels_CHW = image if isinstance(image, Tensor) else to_uint8(image)
    size = canvas_size(*pixels_CHW.shape[1:])
    if size == tuple(pixels_CHW.shape[1:]):
        return pixels_CHW
    if pixels_CHW.device.type == "cpu":
        return F.interpolate(pixels_CHW[None], size, mode="bicubic", antialias=True)[0]
    wide_1CHW = F.interpolate(pixels_CHW[None].float(), size, mode="bicubic", antialias=True)  # a GPU's takes floats
    return wide_1CHW[0].round_().clamp_(0, 255).to(torch.uint8)


# ---- a batch of it ----


@dataclass
class Planned:
    """Decoded images of a batch, each in a corner of a canvas_BCHW, and what was drawn for them.

    groups has (operation, bicubic, number of images) in the order in which they are done; index_N and arguments_N6
    hold the images and arguments of all groups one after the other, so that they reach the GPU in one copy.
    Images that are `encoded`, by their places in the batch, are put into the canvas when the plan is sent to a device.
    """

    canvas_BCHW: Tensor
    encoded: dict[int, Encoded]
    boxes_B4: Tensor
    bicubic_B: Tensor
    flip_B: Tensor
    groups: list[tuple[str, bool, int]]
    index_N: Tensor
    arguments_N6: Tensor
    fill_C: Tensor
    side: int

    def pin_memory(self) -> Planned:
        return self._each(Tensor.pin_memory)

    def to(self, device: torch.device, non_blocking: bool = False) -> Planned:
        sent = self._each(lambda t: t.to(device, non_blocking=non_blocking))
        if not self.encoded:
            return sent
        decoded = zip(self.encoded, decoded_on(device, list(self.encoded.values())), strict=True)
        images = list(self.canvas_BCHW)
        for place, pixels_CHW in decoded:
            images[place] = canvas_pixels(pixels_CHW)
        return dataclasses.replace(sent, encoded={}, canvas_BCHW=_canvas(images, device))

    def tensors(self) -> list[Tensor]:
        return [v for v in vars(self).values() if isinstance(v, Tensor)]

    def _each(self, change: Any) -> Planned:
        return dataclasses.replace(self, **{k: change(v) for k, v in vars(self).items() if isinstance(v, Tensor)})

    def augmented(self) -> Tensor:
        """pixels_BCHW in uint8, on the device that the plan is on."""
        out_BCHW = pixels.resized_crop(self.canvas_BCHW, self.boxes_B4, self.bicubic_B, self.side)
        out_BCHW = torch.where(self.flip_B.view(-1, 1, 1, 1), out_BCHW.flip(-1), out_BCHW)
        sizes = [count for _, _, count in self.groups]
        parts = zip(self.groups, self.index_N.split(sizes), self.arguments_N6.split(sizes), strict=True)
        for (name, bicubic, _), index_B, arguments_B6 in parts:
            some_BCHW = out_BCHW[index_B]
            if name == "affine":
                changed_BCHW = pixels.affine(some_BCHW, arguments_B6, self.fill_C, bicubic)
            else:
                changed_BCHW = pixels.TONES[name](some_BCHW, arguments_B6[:, 0])
            out_BCHW[index_B] = changed_BCHW
        return out_BCHW


def _canvas(images: Sequence[Tensor], device: torch.device) -> Tensor:
    """uint8 images_CHW of any sizes, each in a corner of a canvas_BCHW of one size."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    canvas_BCHW = torch.zeros(len(images), 3, height, width, dtype=torch.uint8, device=device)
    for canvas_CHW, image in zip(canvas_BCHW, images, strict=True):
        canvas_CHW[:, : image.shape[1], : image.shape[2]] = image
    return canvas_BCHW


def plan(images: Sequence[Tensor | Encoded], drawn: Sequence[Drawn], side: int, mean: Sequence[float]) -> Planned:
    """A batch of uint8 images_CHW of any sizes; mean, 0 to 1, fills what an affine map uncovers, as in timm."""
    nothing = torch.zeros(3, 1, 1, dtype=torch.uint8)
    canvas_BCHW = _canvas([nothing if isinstance(i, Encoded) else i for i in images], torch.device("cpu"))
    encoded = {place: image for place, image in enumerate(images) if isinstance(image, Encoded)}
    groups, index, arguments = [], [], []
    for layer in range(max(len(d.operations) for d in drawn)):
        kinds: dict[tuple[str, bool], list[int]] = {}
        for i, d in enumerate(drawn):
            if layer < len(d.operations):
                kinds.setdefault((d.operations[layer].name, d.operations[layer].bicubic), []).append(i)
        for (name, bicubic), members in sorted(kinds.items()):
            groups.append((name, bicubic, len(members)))
            index += members
            arguments += [(*drawn[i].operations[layer].arguments, *[0.0] * 6)[:6] for i in members]
    return Planned(
        canvas_BCHW,
        encoded,
        torch.tensor([d.box for d in drawn]),
        torch.tensor([d.bicubic for d in drawn]),
        torch.tensor([d.flip for d in drawn]),
        groups,
        torch.tensor(index, dtype=torch.int64),
        torch.tensor(arguments, dtype=torch.float64).view(-1, 6),
        torch.tensor([min(255, round(255 * m)) for m in mean], dtype=torch.uint8),
        side,
    )
