"""Writes images to tar shards in parallel; reuses the complete shards of an interrupted command."""

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from modelsoups.data import pictures, shards
from modelsoups.data.imagenet.listing import Listing
from modelsoups.data.shards import Json
from modelsoups.disk import storage
from modelsoups.workers.processes import advance

MAGIC = {  # first bytes -> kind, last bytes
    b"\xff\xd8\xff": ("jpg", b"\xff\xd9"),
    b"\x89PNG\r\n\x1a\n": ("png", b"IEND\xaeB`\x82"),
}
JPEG_QUALITY = 95  # of resized images
PLAN = "plan.json"  # in the folder of an incomplete set: its inputs
REPORT_EVERY = 50  # images


@dataclass(frozen=True)
class Shard:
    """A tar shard that one task writes: its path, its images and how to store them."""

    tar: Path
    images: Listing
    resize: int | None  # pixels of the shorter side; None: store the original bytes
    verify: bool  # decode every image to check it

    def __str__(self) -> str:
        return self.tar.name

    def __len__(self) -> int:
        return len(self.images)


def cut(folder: Path, listing: Listing, images: int, resize: int | None, verify: bool) -> list[Shard]:
    """Divide a list of images into shards of `images` images each; the last may have fewer."""
    starts = range(0, len(listing), images)
    parts = [listing.take(slice(start, start + images)) for start in starts]
    tars = [folder / f"{folder.name}-{number:06d}.tar" for number in range(len(parts))]
    return [Shard(tar, part, resize, verify) for tar, part in zip(tars, parts, strict=True)]


def keep_finished(folder: Path, inputs: Json, todo: list[Shard]) -> dict[str, Json]:
    """Return manifest entries of the shards that are already complete; delete all other shards."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = folder / PLAN
    same = plan.exists() and storage.read_json(plan) == inputs
    entries = {s.tar.name: shards.finished(s.tar, s.images.key_N) for s in todo} if same else {}
    done = {name: entry for name, entry in entries.items() if entry is not None}
    for path in [*folder.glob(f"{folder.name}-*"), *folder.glob(".*.tmp")]:
        if f"{path.stem}.tar" not in done:
            path.unlink()
    storage.write_json(plan, inputs)
    return done


def write(shard: Shard) -> Json:
    """Write one shard; return its manifest entry (file name, image count, bytes, sha256)."""
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
    """Return the image bytes to store, resized if `resize` is set, and their format ("jpg", ...).

    Images with unusual first or last bytes are decoded as a check; with `verify`, all are. Raises
    ValueError, with the location `where`, if an image is damaged.
    """
    kind, end = next((v for magic, v in MAGIC.items() if data.startswith(magic)), (None, b""))
    whole = kind is not None and data.endswith(end)
    if whole and not verify and resize is None:
        assert kind is not None
        return data, kind
    try:
        with warnings.catch_warnings(action="ignore"), pictures.opened(data) as image:
            kind = kind or str(image.format).lower()
            small = _smaller(image, resize) if resize is not None else None
            if small is None and not (whole and not verify):
                image.load()
    except pictures.DAMAGE as error:
        reason = "empty file" if not data else pictures.reason(error)
        way_out = "replace it with the original"
        raise ValueError(f"{where} is not a complete image ({reason}); {way_out}") from error
    return (small, "jpg") if small is not None else (data, kind)


def _smaller(image: Image.Image, side: int) -> bytes | None:
    """Return JPEG bytes of the image, shrunk to a shorter side of `side`; None if not larger."""
    width, height = image.size
    if min(width, height) <= side:
        return None
    scale, buffer = side / min(width, height), io.BytesIO()
    size = (side, int(height * scale)) if width <= height else (int(width * scale), side)
    small = pictures.as_rgb(image).resize(size, Image.Resampling.BICUBIC)
    small.save(buffer, format="jpeg", quality=JPEG_QUALITY)
    return buffer.getvalue()
