"""Pictures that several test modules share, and the mean colour that they crop with."""

import io

import numpy as np
from PIL import Image

MEAN = (0.48, 0.46, 0.41)
SIDE = 48


def photos(count=24):
    """Smooth images with some noise, each of its own size, some smaller than the crop."""
    generator = np.random.default_rng(0)
    for _ in range(count):
        width, height = generator.integers(20, 120, 2)
        coarse = generator.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
        noisy = smooth + generator.integers(-12, 13, smooth.shape)
        yield Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def picture(seed, width, height, channels=3):
    """Coarse noise below fine noise, as photographs have structure of every size."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (6, 8, channels), dtype=np.uint8).squeeze()
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(image, np.int16) + random.integers(-20, 21, np.asarray(image).shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **{"format": "jpeg", "quality": 92, **options})
    return buffer.getvalue()
