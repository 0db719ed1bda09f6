"""Encoded images -> pixels of a training crop, by PIL as the paper's code did it or by faster code: `finetune.decode`.

    pil    PIL decodes and resizes.
    turbo  libjpeg-turbo decodes through simplejpeg, to the same pixels; PyTorch's vector code resizes, within 3 of 255
           levels of PIL (tests/test_decode.py). What is not a JPEG in colour is decoded by PIL.
    gpu    JPEGs in colour reach the GPU as they are and are decoded there, a batch at a time, by torchvision (nvJPEG),
           within a few levels of PIL; with `finetune.augment=gpu`. Everything else as with turbo.

Both draw the same random numbers in the same order, so a crop is the same part of the image either way. Decoding only
the part that is cropped does not pay: reading a JPEG's code words is nine tenths of it (results/LOG.md).

Legend: C channels, H height, W width.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import simplejpeg
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.io import ImageReadMode, decode_jpeg

from modelsoups.data.shards import CorruptImage, by_pil
from modelsoups.data.transforms import Transform, to_uint8

COLOURS = ("YCbCr", "RGB")  # of a JPEG: PIL makes others RGB in its own way
END = b"\xff\xd9"  # of a JPEG that is not cut off


def by_turbo(data: bytes, border: int = 0) -> Tensor:
    """The same pixels_CHW as by_pil's, uint8, channels last in memory. Raises what PIL does when it is corrupt."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in COLOURS:
            raise ValueError(f"{colours} is left to PIL")
        pixels_HWC = simplejpeg.decode_jpeg(data, fastdct=False, fastupsample=False)
    except ValueError:  # PIL reads it, or says what is wrong with it
        return to_uint8(by_pil(data, border))
    pixels_HWC = pixels_HWC[border : height - border, border : width - border]
    return torch.from_numpy(pixels_HWC).permute(2, 0, 1)


@dataclass(frozen=True)
class Encoded:
    """A JPEG that is yet to be decoded; height and width are without its border. where names it in errors."""

    data: bytes
    height: int
    width: int
    border: int
    where: str = "a JPEG"


def later(data: bytes, border: int = 0) -> Encoded | Tensor:
    """A JPEG in colour as it is, with its size from its header; the pixels of everything else, as by_turbo's."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return by_turbo(data, border)
    if colours not in COLOURS or not data.endswith(END):
        return by_turbo(data, border)
    return Encoded(data, height - 2 * border, width - 2 * border, border)


def decoded_on(device: torch.device, images: Sequence[Encoded]) -> list[Tensor]:
    """uint8 pixels_CHW of each on a device. Raises CorruptImage naming one that cannot be decoded."""
    encoded = [torch.frombuffer(bytearray(image.data), dtype=torch.uint8) for image in images]
    try:
        pixels: list[Tensor] = decode_jpeg(encoded, mode=ImageReadMode.RGB, device=device)
    except RuntimeError as error:
        if len(images) == 1:
            reason = str(error).rpartition(", ")[2]
            raise CorruptImage(
                f"{images[0].where} is corrupt ({reason}); run `modelsoups prepare` after deleting that shard"
            ) from error
        return [decoded_on(device, [image])[0] for image in images]  # which names it
    edges = [(i.border, i.border + i.height, i.border, i.border + i.width) for i in images]
    return [p[:, top:bottom, left:right] for p, (top, bottom, left, right) in zip(pixels, edges, strict=True)]


Picture = Image.Image | Tensor | Encoded
DECODERS: dict[str, Callable[[bytes, int], Picture]] = {"pil": by_pil, "turbo": by_turbo, "gpu": later}


def augmented(transform: Transform, image: Image.Image | Tensor) -> Tensor:
    """pixels_CHW of a training transform, uint8: of PIL's image by PIL, of a tensor with its resizing by PyTorch."""
    if isinstance(image, Image.Image):
        return to_uint8(transform(image))
    steps: list[Any] = transform.transforms if isinstance(transform, transforms.Compose) else [transform]
    crop, *others = steps
    pixels_CHW = _random_resized_crop(crop, image)
    if others and isinstance(others[0], transforms.RandomHorizontalFlip):
        pixels_CHW = others.pop(0)(pixels_CHW)
    if not others:
        return pixels_CHW.contiguous()
    return to_uint8(transforms.Compose(others)(Image.fromarray(pixels_CHW.permute(1, 2, 0).numpy())))


def _random_resized_crop(crop: transforms.RandomResizedCrop, pixels_CHW: Tensor) -> Tensor:
    """The crop of torchvision, or timm's, which draws one of two interpolations too."""
    top, left, height, width = crop.get_params(pixels_CHW, crop.scale, crop.ratio)
    mode = crop.interpolation
    mode = random.choice(mode) if isinstance(mode, (tuple, list)) else mode
    part_1CHW = pixels_CHW[None, :, top : top + height, left : left + width]
    part_1CHW = part_1CHW.contiguous(memory_format=torch.channels_last)  # what the vector code is for
    resized_1CHW = F.interpolate(part_1CHW, crop.size, mode=mode.value, antialias=True, align_corners=False)
    return resized_1CHW[0]
