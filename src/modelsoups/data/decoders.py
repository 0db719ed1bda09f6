"""Decoders of training images, chosen by the configuration key `finetune.decode`.

- pil: PIL decodes and resizes every image, as in the paper's code.
- turbo: simplejpeg decodes colour JPEGs to PIL's exact pixels, in 1.59 instead of 1.94 ms. PyTorch
  resizes each in 0.27 instead of 1.43 ms; pixel values then differ from PIL's by at most 3 of 255.
- gpu: torchvision (nvJPEG) decodes batches of colour JPEGs; pixels differ slightly from PIL's.

With turbo and gpu, PIL decodes all images that are not colour JPEGs, but for those that
data.train_format=raw stored decoded: their bytes are the pixels. The random crops are the same.
"""

import random
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from modelsoups.data.pictures import MOST_PIXELS, by_pil
from modelsoups.data.shards import DELETE_SHARD, CorruptImage
from modelsoups.data.transforms import Transform, steps_of, to_uint8

COLOURS = ("YCbCr", "RGB")  # colour spaces of a JPEG that turbo decodes; PIL converts the others
END = b"\xff\xd9"  # last bytes of a complete JPEG
RAW = re.compile(rb"P6\n(\d{1,5}) (\d{1,5})\n255\n")  # the header of an image that is stored decoded


def by_turbo(data: bytes, border: int = 0) -> Tensor:
    """Decode an image to uint8 (3, H, W), cut off its border; raise PIL's error if damaged."""
    header = RAW.match(data)
    if header and len(data) == header.end() + 3 * int(header[1]) * int(header[2]):
        with warnings.catch_warnings(action="ignore"):  # these pixels are read only, as nobody writes to them
            pixels = torch.frombuffer(data, dtype=torch.uint8, offset=header.end())
        return _without_border(pixels.view(int(header[2]), int(header[1]), 3), border)
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in COLOURS or height * width > MOST_PIXELS:
            raise ValueError("left to PIL")
        pixels_HWC = simplejpeg.decode_jpeg(data, fastdct=False, fastupsample=False)
    except ValueError:  # PIL decodes it or reports what is wrong
        return to_uint8(by_pil(data, border))
    return _without_border(torch.from_numpy(pixels_HWC), border)


def _without_border(pixels_HWC: Tensor, border: int) -> Tensor:  # pixels_CHW
    height, width, _ = pixels_HWC.shape
    return pixels_HWC[border : height - border, border : width - border].permute(2, 0, 1)


@dataclass(frozen=True)
class EncodedJpeg:
    """A JPEG to decode on the GPU; height and width exclude `border` pixels cut off each side."""

    data: bytes
    height: int
    width: int
    border: int
    where: str = "a JPEG"  # for messages, as way_out
    way_out: str = DELETE_SHARD


def left_encoded(data: bytes, border: int = 0) -> EncodedJpeg | Tensor:
    """Return a colour JPEG as an EncodedJpeg for the GPU; decode any other image with by_turbo."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return by_turbo(data, border)
    if colours not in COLOURS or not data.endswith(END) or height * width > MOST_PIXELS:
        return by_turbo(data, border)
    return EncodedJpeg(data, height - 2 * border, width - 2 * border, border)


def decode_on(device: torch.device, images: Sequence[EncodedJpeg]) -> list[Tensor]:
    """Decode JPEGs on a device to uint8 (3, H, W) tensors; raise CorruptImage if one is damaged."""
    from torchvision.io import ImageReadMode, decode_jpeg  # imported only where it is needed: it takes a second

    encoded = [torch.frombuffer(bytearray(image.data), dtype=torch.uint8) for image in images]
    try:
        pixels = decode_jpeg(encoded, mode=ImageReadMode.RGB, device=device)
    except RuntimeError as error:
        if len(images) > 1:  # decode one by one to find the corrupt image
            return [decode_on(device, [image])[0] for image in images]
        raise CorruptImage.at(images[0].where, str(error).rpartition(", ")[2], images[0].way_out) from error
    cropped = []
    for i, pixels_CHW in zip(images, pixels, strict=True):
        cropped.append(pixels_CHW[:, i.border : i.border + i.height, i.border : i.border + i.width])
    return cropped


Picture = Image.Image | Tensor | EncodedJpeg


def raw(image: Picture) -> tuple[bytes, memoryview]:
    """Return the two parts of the bytes by which data.train_format=raw stores a decoded image: header and pixels."""
    assert not isinstance(image, EncodedJpeg)  # finetune.share refuses decode=gpu
    pixels_HWC = np.asarray(image) if isinstance(image, Image.Image) else image.permute(1, 2, 0).numpy()
    height, width, _ = pixels_HWC.shape
    return b"P6\n%d %d\n255\n" % (width, height), np.ascontiguousarray(pixels_HWC).reshape(-1).data


DECODERS: dict[str, Callable[[bytes, int], Picture]] = {"pil": by_pil, "turbo": by_turbo, "gpu": left_encoded}


def augmented(transform: Transform, image: Image.Image | Tensor) -> Tensor:
    """Augment an image and return uint8 (3, H, W); tensors are cropped and resized by PyTorch."""
    if isinstance(image, Image.Image):
        return to_uint8(transform(image))
    from torchvision.transforms import Compose, RandomHorizontalFlip

    crop, *others = steps_of(transform)
    pixels_CHW = _random_resized_crop(crop, image)
    if others and isinstance(others[0], RandomHorizontalFlip):
        pixels_CHW = others.pop(0)(pixels_CHW)
    if not others:
        return pixels_CHW.contiguous()
    picture = Image.fromarray(pixels_CHW.permute(1, 2, 0).numpy())
    return to_uint8(Compose(others)(picture))


def _random_resized_crop(crop: Any, pixels_CHW: Tensor) -> Tensor:
    """Crop and resize a tensor in PyTorch, with the same random draws as torchvision's RandomResizedCrop `crop`."""
    top, left, height, width = crop.get_params(pixels_CHW, crop.scale, crop.ratio)
    mode = crop.interpolation
    mode = random.choice(mode) if isinstance(mode, (tuple, list)) else mode
    part_1CHW = pixels_CHW[None, :, top : top + height, left : left + width]
    part_1CHW = part_1CHW.contiguous(memory_format=torch.channels_last)  # twice as fast to resize
    resized_1CHW = F.interpolate(part_1CHW, crop.size, mode=mode.value, antialias=True, align_corners=False)
    return resized_1CHW[0]
