"""Encoded images -> pixels of a training crop, by PIL as the paper's code did it or by faster code: `finetune.decode`.

    pil    PIL decodes and resizes.
    turbo  libjpeg-turbo decodes through torchvision, to the same pixels; PyTorch's vector code resizes, within 2 of 255
           levels of PIL (tests/test_decode.py). What is not an RGB JPEG is decoded by PIL.

Both draw the same random numbers in the same order, so a crop is the same part of the image either way. Decoding only
the part that is cropped does not pay: reading a JPEG's code words is nine tenths of it (results/LOG.md).

Legend: C channels, H height, W width.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.io import decode_jpeg

from modelsoups.data.shards import by_pil
from modelsoups.data.transforms import Transform, to_uint8

JPEG = b"\xff\xd8"


def by_turbo(data: bytes, border: int = 0) -> Tensor:
    """The same pixels_CHW as by_pil's, uint8, channels last in memory. Raises what PIL does when it is corrupt."""
    if data.startswith(JPEG):
        try:
            pixels_CHW = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        except RuntimeError:  # PIL reads it, or says what is wrong with it
            pixels_CHW = torch.empty(0)
        if len(pixels_CHW) == 3:
            height, width = pixels_CHW.shape[1:]
            return pixels_CHW[:, border : height - border, border : width - border]
    return to_uint8(by_pil(data, border)).contiguous(memory_format=torch.contiguous_format)


DECODERS: dict[str, Callable[[bytes, int], Image.Image | Tensor]] = {"pil": by_pil, "turbo": by_turbo}


def augmented(transform: Transform, image: Image.Image | Tensor) -> Tensor:
    """pixels_CHW of a training transform, uint8: of PIL's image by PIL, of a tensor with its resizing by PyTorch."""
    if isinstance(image, Image.Image):
        return to_uint8(transform(image))
    assert isinstance(transform, transforms.Compose)
    crop, *others = transform.transforms
    pixels_CHW = _random_resized_crop(crop, image)
    if not others:
        return pixels_CHW.contiguous()
    picture = Image.fromarray(pixels_CHW.permute(1, 2, 0).numpy())
    for change in others:
        picture = change(picture)
    return to_uint8(picture)


def _random_resized_crop(crop: transforms.RandomResizedCrop, pixels_CHW: Tensor) -> Tensor:
    """The crop of torchvision, or timm's, which draws one of two interpolations too."""
    top, left, height, width = crop.get_params(pixels_CHW, crop.scale, crop.ratio)
    mode = crop.interpolation
    mode = random.choice(mode) if isinstance(mode, (tuple, list)) else mode
    part_1CHW = pixels_CHW[None, :, top : top + height, left : left + width]
    part_1CHW = part_1CHW.contiguous(memory_format=torch.channels_last)  # what the vector code is for
    resized_1CHW = F.interpolate(part_1CHW, crop.size, mode=mode.value, antialias=True, align_corners=False)
    return resized_1CHW[0]
