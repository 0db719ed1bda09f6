"""Decoders of training images: PIL, libjpeg-turbo or the GPU, chosen by `finetune.decode`.

- pil: PIL decodes and resizes, as in the paper's code.
- turbo: simplejpeg (libjpeg-turbo) decodes a colour JPEG to PIL's exact pixels in 1.59 ms (PIL:
  1.94); PyTorch resizes the crop, within 3 of 255 levels of PIL, in 0.27 ms (PIL: 1.43).
- gpu: torchvision (nvJPEG) decodes batches of colour JPEGs on the GPU, within a few levels of PIL.

turbo leaves other images to PIL, gpu leaves them to turbo. All crop the same part of an image.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import simplejpeg
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.io import ImageReadMode, decode_jpeg

from modelsoups.data.pictures import MOST_PIXELS, by_pil
from modelsoups.data.shards import DELETE_SHARD, CorruptImage
from modelsoups.data.transforms import Transform, steps_of, to_uint8

COLOURS = ("YCbCr", "RGB")  # colour spaces of a JPEG that turbo decodes; PIL converts the others
END = b"\xff\xd9"  # last bytes of a complete JPEG


def by_turbo(data: bytes, border: int = 0) -> Tensor:
    """Decode an image to PIL's uint8 pixels_CHW, channels last in memory; raises as PIL does."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in COLOURS or height * width > MOST_PIXELS:
            raise ValueError("left to PIL")
        pixels_HWC = simplejpeg.decode_jpeg(data, fastdct=False, fastupsample=False)
    except ValueError:  # PIL decodes it or reports what is wrong
        return to_uint8(by_pil(data, border))
    pixels_HWC = pixels_HWC[border : height - border, border : width - border]
    return torch.from_numpy(pixels_HWC).permute(2, 0, 1)


@dataclass(frozen=True)
class EncodedJpeg:
    """A JPEG to be decoded on the GPU; height and width exclude the border, which is cut off."""

    data: bytes
    height: int
    width: int
    border: int
    where: str = "a JPEG"  # for messages, as way_out
    way_out: str = DELETE_SHARD


def left_encoded(data: bytes, border: int = 0) -> EncodedJpeg | Tensor:
    """Return a colour JPEG still encoded, with its size; decode other images with by_turbo."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return by_turbo(data, border)
    if colours not in COLOURS or not data.endswith(END) or height * width > MOST_PIXELS:
        return by_turbo(data, border)
    return EncodedJpeg(data, height - 2 * border, width - 2 * border, border)


def decode_on(device: torch.device, images: Sequence[EncodedJpeg]) -> list[Tensor]:
    """Decode images on a device to uint8 pixels_CHW; CorruptImage if one cannot be decoded."""
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
DECODERS: dict[str, Callable[[bytes, int], Picture]] = {"pil": by_pil, "turbo": by_turbo, "gpu": left_encoded}


def augmented(transform: Transform, image: Image.Image | Tensor) -> Tensor:
    """Apply a transform and return uint8 pixels_CHW; PyTorch resizes a tensor's crop."""
    if isinstance(image, Image.Image):
        return to_uint8(transform(image))
    crop, *others = steps_of(transform)
    pixels_CHW = _random_resized_crop(crop, image)
    if others and isinstance(others[0], transforms.RandomHorizontalFlip):
        pixels_CHW = others.pop(0)(pixels_CHW)
    if not others:
        return pixels_CHW.contiguous()
    picture = Image.fromarray(pixels_CHW.permute(1, 2, 0).numpy())
    return to_uint8(transforms.Compose(others)(picture))


def _random_resized_crop(crop: transforms.RandomResizedCrop, pixels_CHW: Tensor) -> Tensor:
    """Crop and resize as torchvision's class or timm's, which also draws the interpolation."""
    top, left, height, width = crop.get_params(pixels_CHW, crop.scale, crop.ratio)
    mode = crop.interpolation
    mode = random.choice(mode) if isinstance(mode, (tuple, list)) else mode
    part_1CHW = pixels_CHW[None, :, top : top + height, left : left + width]
    part_1CHW = part_1CHW.contiguous(memory_format=torch.channels_last)  # twice as fast to resize
    resized_1CHW = F.interpolate(part_1CHW, crop.size, mode=mode.value, antialias=True, align_corners=False)
    return resized_1CHW[0]
