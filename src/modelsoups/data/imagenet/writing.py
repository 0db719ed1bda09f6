"""Writing listed images into shards in parallel; complete shards of an earlier run are kept."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from modelsoups.data import shards
from modelsoups.data.imagenet.listing import Listing
from modelsoups.disk import storage
from modelsoups.workers.processes import advance

MAGIC = {  # first bytes -> kind, last bytes
    b"\xff\xd8\xff": ("jpg", b"\xff\xd9"),
    b"\x89PNG\r\n\x1a\n": ("png", b"IEND\xaeB`\x82"),
}
JPEG_QUALITY = 95  # of resized images
PLAN = "plan.json"  # in the folder of an incomplete set: its inputs
DAMAGE = (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError)
REPORT_EVERY = 50  # images


@dataclass(frozen=True)
class Shard:
    """A shard to be written by one task."""

    tar: Path
    images: Listing
    resize: int | None  # pixels of the shorter side; None: keep the original bytes
    verify: bool  # decode every image to check it

    def __str__(self) -> str:
        return self.tar.name

    def __len__(self) -> int:
        return len(self.images)


def cut(folder: Path, listing: Listing, images: int, resize: int | None, verify: bool) -> list[Shard]:
    """The shards of a set, with `images` images each and fewer in the last."""
    found = []
    for number, start in enumerate(range(0, len(listing), images)):
        tar = folder / f"{folder.name}-{number:06d}.tar"
        found.append(Shard(tar, listing.take(slice(start, start + images)), resize, verify))
    return found


def keep_finished(folder: Path, inputs: dict[str, Any], todo: list[Shard]) -> dict[str, dict[str, Any]]:
    """Manifest entries of the complete shards of an interrupted run with these inputs, by file name.

    All its other files are removed. The caller holds the folder's lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plan = folder / PLAN
    same = plan.exists() and storage.read_json(plan) == inputs
    done = {}
    for shard in todo if same else ():
        if entry := shards.finished(shard.tar, shard.images.key_N):
            done[shard.tar.name] = entry
    for path in [*folder.glob(f"{folder.name}-*"), *folder.glob(".*.tmp")]:
        if f"{path.stem}.tar" not in done:
            path.unlink()
    storage.write_json(plan, inputs)
    return done


def write(shard: Shard) -> dict[str, Any]:
    """Write one shard; its entry in the manifest."""
    return shards.write_shard(shard.tar, _samples(shard))


def _samples(shard: Shard) -> Iterator[shards.Sample]:
    images = shard.images
    for row in range(len(images)):
        data, kind = encoded(images.read(row), images.where(row), shard.resize, shard.verify)
        yield images.key(row), data, kind, int(images.label_N[row])
        if row % REPORT_EVERY == REPORT_EVERY - 1:
            advance(REPORT_EVERY)
    advance(len(images) % REPORT_EVERY)


def encoded(data: bytes, where: str, resize: int | None, verify: bool) -> tuple[bytes, str]:
    """The image to store and its kind ("jpg", "png", ...), whatever its file name.

    The bytes are unchanged unless the image is resized. An image that begins and ends as its format
    does counts as complete; others are decoded to check, and with `verify` all are. Raises
    ValueError naming the place of an image that cannot be decoded.
    """
    formats = (found for magic, found in MAGIC.items() if data.startswith(magic))
    kind, end = next(formats, (None, b""))
    whole = kind is not None and data.endswith(end)
    if whole and not verify and resize is None:
        assert kind is not None
        return data, kind
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata
            with Image.open(io.BytesIO(data)) as image:
                kind = kind or str(image.format).lower()
                small = _smaller(image, resize) if resize is not None else None
                if small is None and not (whole and not verify):
                    image.load()
    except DAMAGE as error:
        reason = "empty file" if not data else str(error).partition("<")[0].strip()
        raise ValueError(f"{where} is not a complete image ({reason}); replace it with the original") from error
    return (small, "jpg") if small is not None else (data, kind)


def _smaller(image: Image.Image, side: int) -> bytes | None:
    """The image as a JPEG with a shorter side of `side` pixels (PIL's bicubic); None if not larger."""
    width, height = image.size
    if min(width, height) <= side:
        return None
    scale = side / min(width, height)
    size = (side, int(height * scale)) if width <= height else (int(width * scale), side)
    buffer = io.BytesIO()
    small = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    small.save(buffer, format="jpeg", quality=JPEG_QUALITY)
    return buffer.getvalue()
