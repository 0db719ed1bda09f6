"""Images of any origin: 16 bits are scaled, bombs cost no memory, and no program is started."""

import io
import os
import resource
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from photos import encoded, picture
from PIL import Image, UnidentifiedImageError

from modelsoups.data import decoders, pictures


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, bits, colour, rows):
    """A PNG of raw rows, which PIL itself cannot write in every mode."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def jpeg(width, height):
    """A whole JPEG of 8 x 8 pixels whose header says another size."""
    data = bytearray(encoded(Image.new("RGB", (8, 8))))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def webp(width, height):
    head = b"\x10\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    whole = io.BytesIO()
    Image.new("RGB", (8, 8)).save(whole, "webp", lossless=True)
    chunks = b"VP8X" + struct.pack("<I", len(head)) + head + whole.getvalue()[12:]
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


VALUES = [0, 255, 256, 0x1234, 0x8000, 0xFFFF]
SCALED = [0, 0, 1, 0x12, 0x80, 0xFF]  # the upper eight bits


def grey_png():
    return png(6, 1, 16, 0, b"\0" + struct.pack(">6H", *VALUES))


def colour_png():
    return png(6, 1, 16, 2, b"\0" + b"".join(struct.pack(">3H", v, v, v) for v in VALUES))


def grey_pgm():
    return b"P5 6 1 65535\n" + struct.pack(">6H", *VALUES)


def grey_tiff():
    buffer = io.BytesIO()
    Image.fromarray(np.array([VALUES], dtype=np.uint16)).save(buffer, "tiff")
    return buffer.getvalue()


@pytest.mark.parametrize("make", [grey_png, colour_png, grey_pgm, grey_tiff])
@pytest.mark.parametrize("decoder", decoders.DECODERS)
def test_16_bits_become_their_upper_eight(make, decoder):
    image = decoders.DECODERS[decoder](make(), 0)
    pixels_HWC = np.asarray(image) if isinstance(image, Image.Image) else image.permute(1, 2, 0).numpy()
    assert pixels_HWC.tolist() == [[[v, v, v] for v in SCALED]]
    pictures.check(make())


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_of_32_bits_are_refused(kind):
    buffer = io.BytesIO()
    Image.fromarray(np.ones((2, 2), dtype=kind)).save(buffer, "tiff")
    with pytest.raises(ValueError, match=r"32-bit pixels .* save the image with 8 or 16 bits"):
        pictures.check(buffer.getvalue())


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "bmp", "gif", "tiff", "ppm"])
def test_every_format_that_is_promised_is_read(format):
    image = Image.new("RGB", (4, 3), (250, 0, 0))
    data = encoded(image, format=format)
    pictures.check(data, every_pixel=True)
    found = np.asarray(pictures.by_pil(data)).astype(int)
    assert found.shape == (3, 4, 3)
    assert abs(found - np.asarray(image)).max() <= 8


BOMBS = {
    "jpeg": lambda: jpeg(65500, 65500),
    "png": lambda: png(30000, 30000, 8, 2, b""),
    "webp": lambda: webp(16383, 16383),
    "bmp": lambda: b"BM" + struct.pack("<IIIIiiHH", 58, 0, 54, 40, 30000, 30000, 1, 24) + bytes(28),
    "pgm": lambda: b"P5 30000 30000 255\n0",
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", BOMBS)
@pytest.mark.parametrize("lifted", [False, True])
def test_the_size_in_the_header_decides(kind, lifted, monkeypatch):
    """Also where another package has lifted PIL's limit. The peak of this process hardly moves."""
    if lifted:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    data = BOMBS[kind]()
    assert len(data) < 2000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for decode in (*decoders.DECODERS.values(), lambda data, _: pictures.check(data)):
        with pytest.raises(Image.DecompressionBombError, match="pixels"):
            decode(data, 0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n%%EOF\n"


def test_postscript_starts_no_program(tmp_path):
    """A stand-in for Ghostscript says whether it was started; PIL alone starts it."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexit 1\n")
    (tmp_path / "gs").chmod(0o755)
    (tmp_path / "1.jpg").write_bytes(POSTSCRIPT)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    call = {
        False: "from PIL import Image; Image.open(sys.argv[1]).load()",
        True: "from modelsoups.data.pictures import by_pil; by_pil(open(sys.argv[1], 'rb').read())",
    }
    for ours in (True, False):
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; {call[ours]}", str(tmp_path / "1.jpg")], env=env, capture_output=True
        )
        assert done.returncode == 1
        assert (tmp_path / "started").exists() != ours
        assert (b"cannot identify image file: its content is not JPEG, PNG" in done.stderr) == ours


def test_what_is_no_whole_image_is_found_without_decoding_those_that_are():
    whole = encoded(picture(0, 50, 40))
    pictures.check(whole)
    pictures.check(whole + b"\n")  # what the decoder takes is taken
    broken = bytearray(encoded(picture(1, 50, 40), format="png"))
    broken[60:70] = bytes(10)
    pictures.check(bytes(broken))
    for data, every_pixel in ((b"", False), (whole[:-100], False), (b"<html>", False), (bytes(broken), True)):
        with pytest.raises(pictures.DAMAGE):
            pictures.check(data, every_pixel)
    with pytest.raises(UnidentifiedImageError):
        pictures.opened(b"<html>404</html>")
