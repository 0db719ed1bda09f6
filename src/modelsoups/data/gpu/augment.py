"""Augments batches on the GPU (`finetune.augment=gpu`), with random parameters drawn on the CPU.

The data loader's processes draw the same parameters for each image as with `augment=cpu`. The GPU
then applies the operations; the result equals that of PIL up to rounding.

Legend (last letters of tensor names): N drawn operations of a batch.
"""

import copy
import dataclasses
import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from modelsoups.data.decoders import EncodedJpeg, Picture, decode_on
from modelsoups.data.gpu import operations
from modelsoups.data.transforms import Transform, steps_of, to_uint8

LARGEST = 512  # pixels of the longer side: larger images are shrunk first, to bound the canvas size
JITTER = ("Brightness", "Contrast", "Color")  # in torchvision's order


@dataclass(frozen=True)
class Operation:
    """One augmentation step: timm's operation and argument, or "affine" and six matrix entries."""

    name: str
    arguments: tuple[float, ...] = (0.0,)
    bicubic: bool = False


@dataclass
class Drawn:
    """One image's randomly drawn augmentation; `box` is the crop as (top, left, height, width)."""

    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    bicubic: bool = True
    flip: bool = False
    operations: list[Operation] = field(default_factory=list)


def draw(transform: Transform, image: Picture, side: int) -> Drawn:
    """Draw the random parameters of transform(image), and return them without changing the image.

    `side` is the output size. Raises TypeError for a transform that the GPU version lacks.
    """
    from timm.data.auto_augment import RandAugment  # imported only where it is needed, as in data.transforms
    from timm.data.transforms import RandomResizedCropAndInterpolation
    from torchvision import transforms

    drawn = Drawn()
    if isinstance(image, EncodedJpeg):
        image = torch.empty(3, *canvas_size(image.height, image.width), device="meta")
    for step in steps_of(transform):
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
        elif isinstance(step, RandAugment):
            drawn.operations += _recording(step, side)([])
        elif isinstance(step, transforms.ColorJitter):
            order, *factors = step.get_params(step.brightness, step.contrast, step.saturation, step.hue)
            drawn.operations += [Operation(JITTER[i], (factors[i],)) for i in order.tolist() if i < len(JITTER)]
        else:
            unsupported = f"does not support {type(step).__name__}"
            raise TypeError(f"finetune.augment=gpu {unsupported}; use finetune.augment=cpu")
    return drawn


@functools.lru_cache(maxsize=16)
def _recording(step: Any, side: int) -> Any:
    """Return a copy of timm's RandAugment `step` that returns the operations it draws instead of applying them."""
    recording = copy.copy(step)
    recording.ops = list(map(copy.copy, step.ops))
    for op in recording.ops:
        op.aug_fn = functools.partial(_record, op.name, side)
    return recording


def _record(name: str, side: int, recorded: list[Operation], argument: float = 0.0, **options: Any) -> list[Operation]:
    if name not in operations.AFFINE:
        return [*recorded, Operation(name, (float(argument),))]
    from timm.data.auto_augment import _interpolation

    mode = _interpolation(options)  # also draws
    matrix = operations.affine_matrix(name, argument, side)
    return [*recorded, Operation("affine", matrix, mode == Image.Resampling.BICUBIC)]


def canvas_size(height: int, width: int) -> tuple[int, int]:
    """Return an image's (height, width), shrunk if the longer side exceeds LARGEST (512) pixels."""
    longer = max(height, width, LARGEST)
    return max(1, round(height * LARGEST / longer)), max(1, round(width * LARGEST / longer))


def canvas_pixels(image: Image.Image | Tensor) -> Tensor:
    """Return a decoded image as uint8 (3, H, W), shrunk if a side is longer than 512 pixels."""
    pixels_CHW = image if isinstance(image, Tensor) else to_uint8(image)
    size = canvas_size(*pixels_CHW.shape[1:])
    if size == tuple(pixels_CHW.shape[1:]):
        return pixels_CHW
    if pixels_CHW.device.type == "cpu":
        return F.interpolate(pixels_CHW[None], size, mode="bicubic", antialias=True)[0]
    floats_1CHW = pixels_CHW[None].float()  # a GPU resizes floats only
    resized_1CHW = F.interpolate(floats_1CHW, size, mode="bicubic", antialias=True)
    return resized_1CHW[0].round_().clamp_(0, 255).to(torch.uint8)


@dataclass
class BatchPlan:
    """A batch of images, padded to a common size, with augmentations drawn but not yet applied."""

    canvas_BCHW: Tensor
    encoded: dict[int, EncodedJpeg]  # by index in the batch; decoded on the device
    boxes_B4: Tensor
    bicubic_B: Tensor
    flip_B: Tensor
    groups: list[tuple[str, bool, int]]  # (operation, bicubic, images), in order of execution
    index_N: Tensor  # the images of all groups
    arguments_N6: Tensor
    fill_C: Tensor
    side: int

    def pin_memory(self) -> "BatchPlan":
        return self._each(Tensor.pin_memory)

    def to(self, device: torch.device, non_blocking: bool = False) -> "BatchPlan":
        moved = self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))
        if not self.encoded:
            return moved
        decoded = decode_on(device, list(self.encoded.values()))
        images = list(self.canvas_BCHW)
        for place, pixels_CHW in zip(self.encoded, decoded, strict=True):
            images[place] = canvas_pixels(pixels_CHW)
        return dataclasses.replace(moved, encoded={}, canvas_BCHW=_canvas(images, device))

    def tensors(self) -> list[Tensor]:
        return [v for v in vars(self).values() if isinstance(v, Tensor)]

    def _each(self, change: Callable[[Tensor], Tensor]) -> "BatchPlan":
        changed: dict[str, Any] = {k: change(v) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return dataclasses.replace(self, **changed)

    def augmented(self) -> Tensor:
        """Apply the augmentations on the tensors' device; return uint8 (B, C, side, side)."""
        side = self.side
        out_BCHW = operations.resized_crop(self.canvas_BCHW, self.boxes_B4, self.bicubic_B, side)
        out_BCHW = torch.where(self.flip_B.view(-1, 1, 1, 1), out_BCHW.flip(-1), out_BCHW)
        sizes = [count for _, _, count in self.groups]
        images, arguments = self.index_N.split(sizes), self.arguments_N6.split(sizes)
        for group, index_B, arguments_B6 in zip(self.groups, images, arguments, strict=True):
            name, bicubic, _ = group
            some_BCHW = out_BCHW[index_B]
            if name == "affine":
                out_BCHW[index_B] = operations.affine(some_BCHW, arguments_B6, self.fill_C, bicubic)
            else:
                out_BCHW[index_B] = operations.TONES[name](some_BCHW, arguments_B6[:, 0])
        return out_BCHW


def _canvas(images: Sequence[Tensor], device: torch.device) -> Tensor:
    """Pad uint8 images (3, H, W) with zeros at the bottom and right, and stack them to a batch."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    canvas_BHWC = torch.zeros(len(images), height, width, 3, dtype=torch.uint8, device=device)
    canvas_BCHW = canvas_BHWC.permute(0, 3, 1, 2)  # decoded images have this layout, so rows are copied whole
    for canvas_CHW, image in zip(canvas_BCHW, images, strict=True):
        canvas_CHW[:, : image.shape[1], : image.shape[2]] = image
    return canvas_BCHW


def plan_batch(
    images: Sequence[Tensor | EncodedJpeg], drawn: Sequence[Drawn], side: int, mean: Sequence[float]
) -> BatchPlan:
    """Return a BatchPlan for images of any size; mean (0 to 1) is the colour of empty pixels."""
    encoded = {place: image for place, image in enumerate(images) if isinstance(image, EncodedJpeg)}
    nothing = torch.zeros(3, 1, 1, dtype=torch.uint8)
    decoded = [nothing if isinstance(image, EncodedJpeg) else image for image in images]
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
    return BatchPlan(
        _canvas(decoded, torch.device("cpu")),
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
