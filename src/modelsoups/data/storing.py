"""How `prepare` stores images: with their original bytes, resized as JPEG, or resized and decoded."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image

from modelsoups.config.data import DataConfig
from modelsoups.data import pictures
from modelsoups.data.shards import Json

MAGIC = {  # first bytes -> file type, last bytes
    b"\xff\xd8\xff": ("jpg", b"\xff\xd9"),
    b"\x89PNG\r\n\x1a\n": ("png", b"IEND\xaeB`\x82"),
}
JPEG_QUALITY = 95  # of resized images
RAW = "ppm"  # the file type of decoded images: a short header, then the pixels


@dataclass(frozen=True)
class Storing:
    """How the images of a set are stored: as they are, resized as JPEG, or resized and decoded.

    resize: pixels of the shorter side, None: as they are. raw: decoded. verify: decode every image to check it.
    """

    resize: int | None = None
    raw: bool = False
    verify: bool = False

    @classmethod
    def of(cls, data: DataConfig, training: bool) -> "Storing":
        """Return how a set is stored; ValueError for data.train_format=raw without data.train_resize."""
        if not training:
            return cls(verify=data.verify)
        raw = data.train_format == "raw"
        if raw and data.train_resize is None:
            why = "decoded images of full size take too much disk"
            raise ValueError(f"data.train_format=raw needs data.train_resize, such as 256: {why}")
        return cls(data.train_resize, raw, data.verify)

    def identity(self) -> Json:
        """Return what the stored bytes depend on, for the inputs of a manifest."""
        return {"resize": self.resize} | ({"format": "raw"} if self.raw else {})

    def expected(self, size_N: np.ndarray) -> int:
        """Return the bytes that images of these sizes in bytes will take: exact for original bytes.

        For decoded images an estimate, with sides of 4 to 3; 0 for resized JPEGs.
        """
        if self.resize is None:
            return int(size_N.sum())
        return len(size_N) * self.resize**2 * 4 if self.raw else 0


def stored(data: bytes, where: str, storing: Storing) -> tuple[bytes, str]:
    """Return the image bytes to store and their format ("jpg", ...); see `Storing`.

    Images with unusual first or last bytes are decoded as a check; with storing.verify, all are. Raises
    ValueError, with the location `where`, if an image is damaged.
    """
    kind, end = next((v for magic, v in MAGIC.items() if data.startswith(magic)), (None, b""))
    whole = kind is not None and data.endswith(end)
    if whole and not storing.verify and storing.resize is None:
        assert kind is not None
        return data, kind
    try:
        with warnings.catch_warnings(action="ignore"), pictures.opened(data) as image:
            kind = kind or str(image.format).lower()
            small = None if storing.resize is None else _smaller(image, storing.resize)
            if storing.raw:
                return _bytes_of(small or pictures.as_rgb(image), "ppm"), RAW
            if small is not None:
                return _bytes_of(small, "jpeg", quality=JPEG_QUALITY), "jpg"
            if not whole or storing.verify:
                image.load()
    except pictures.DAMAGE as error:
        reason = "empty file" if not data else pictures.reason(error)
        way_out = "replace it with the original"
        raise ValueError(f"{where} is not a complete image ({reason}); {way_out}") from error
    return data, kind


def _smaller(image: Image.Image, side: int) -> Image.Image | None:
    """Return the image, shrunk to a shorter side of `side`; None if it is not larger."""
    width, height = image.size
    if min(width, height) <= side:
        return None
    scale = side / min(width, height)
    size = (side, int(height * scale)) if width <= height else (int(width * scale), side)
    return pictures.as_rgb(image).resize(size, Image.Resampling.BICUBIC)


def _bytes_of(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()
