"""Decodes image files of unknown origin: common formats, limited sizes, 8 bits per colour channel.

Formats for which PIL starts another program (Ghostscript for PostScript) are refused, whatever the
file's name. The size in the header is checked before any pixel is decoded.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MOST_PIXELS = 178_956_970  # PIL's own limit, which its other decoders and programs may have lifted
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}  # last bytes of a complete file
DEEP = "I;16", "I;16L", "I;16B", "I;16N"  # PIL's modes of 16-bit grey
ODD = (*DEEP, "I", "F")  # modes whose values do not end at 255
DAMAGE = (  # what PIL raises for an image that it cannot decode
    UnidentifiedImageError,
    Image.DecompressionBombError,
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    IndexError,
    struct.error,
    zlib.error,
)


def opened(data: bytes) -> Image.Image:
    """Open an image without decoding pixels; an error in DAMAGE for unknown formats or sizes."""
    _refuse_size(*_webp_size(data))  # PIL's decoder of WebP reserves memory when it opens a file
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        known = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise UnidentifiedImageError(f"cannot identify image file: its content is not {known}") from error
    _refuse_size(*image.size)
    return image


def _refuse_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise Image.DecompressionBombError(f"{width:,} x {height:,} pixels; at most {MOST_PIXELS:,} are allowed")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) from the header of an extended WebP file, else (0, 0)."""
    if data[:4] != b"RIFF" or data[8:16] != b"WEBPVP8X":
        return 0, 0
    return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1


def as_rgb(image: Image.Image) -> Image.Image:
    """Decode an opened image to 8-bit RGB; 16-bit values keep their upper 8 bits."""
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode not in ODD:
        return image.convert("RGB")
    if image.mode not in DEEP and (image.mode == "F" or image.format == "TIFF"):
        raise ValueError(f"32-bit pixels (mode {image.mode}) have no known range: save the image with 8 or 16 bits")
    grey_HW = (np.asarray(image).astype(np.int32) >> 8).clip(0, 255).astype(np.uint8)
    return Image.fromarray(grey_HW).convert("RGB")


def by_pil(data: bytes, border: int = 0) -> Image.Image:
    """Decode an image to RGB and cut off `border` pixels; an error in DAMAGE if it is corrupt."""
    image = as_rgb(opened(data))
    if border:
        width, height = image.size
        image = image.crop((border, border, width - border, height - border))
    return image


def check(data: bytes, every_pixel: bool = False) -> None:
    """Raise one of the errors in DAMAGE if a file is not a complete image, or has too many pixels.

    The pixels are decoded only if every_pixel, or if the last bytes do not prove the file complete.
    """
    if not data:
        raise ValueError("the file is empty")
    image = opened(data)
    end = ENDS.get("JPEG" if image.format == "MPO" else str(image.format))
    if every_pixel or image.mode in ODD or end is None or not data.endswith(end):
        as_rgb(image)


def reason(error: BaseException) -> str:
    """Return an error's message without memory addresses and without PIL's guess at the cause."""
    return str(error).partition("<")[0].partition(", could be")[0].strip() or type(error).__name__
