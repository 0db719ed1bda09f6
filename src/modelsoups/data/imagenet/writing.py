"""Writing the shards of listed images, side by side; a shard that is there in full is not written again."""

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

MAGIC = {b"\xff\xd8\xff": ("jpg", b"\xff\xd9"), b"\x89PNG\r\n\x1a\n": ("png", b"IEND\xaeB`\x82")}  # kind, last bytes
JPEG_QUALITY = 95  # of images made smaller
PLAN = "plan.json"  # in the folder of an unfinished set: what it is made from
REPORT_EVERY = 50  # images between reports of progress


@dataclass(frozen=True)
class Shard:
    """One shard to write: a task."""

    tar: Path
    images: Listing
    resize: int | None  # pixels of the shorter side; None keeps the original bytes
    verify: bool  # decode every image

    def __str__(self) -> str:
        return self.tar.name

    def __len__(self) -> int:
        return len(self.images)


def cut(folder: Path, listing: Listing, images: int, resize: int | None, verify: bool) -> list[Shard]:
    """A set's images as shards of so many."""
    starts = range(0, len(listing), images)
    tars = [folder / f"{folder.name}-{i:06d}.tar" for i in range(len(starts))]
    parts = [listing.take(slice(start, start + images)) for start in starts]
    return [Shard(tar, part, resize, verify) for tar, part in zip(tars, parts, strict=True)]


def keep_finished(folder: Path, inputs: dict[str, Any], todo: list[Shard]) -> dict[str, dict[str, Any]]:
    """Entries of the shards that an earlier, interrupted run left in full; whatever else it left is removed.

    Shards made from other inputs are not kept. The caller holds the folder's lock.
    """
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


def write(shard: Shard) -> dict[str, Any]:
    """Write one shard; its entry of the manifest."""
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
    """The image to store, and what it is ("jpg", "png", ...), whatever its file was called.

    Bytes are kept as they are, in any colour mode, unless the image is to be made smaller. An image that begins and
    ends as its format does is taken for whole, any other is decoded to see; verify decodes each. Raises ValueError
    naming the place of an image that cannot be decoded.
    """
    kind, end = next((v for magic, v in MAGIC.items() if data.startswith(magic)), (None, b""))
    whole = kind is not None and data.endswith(end)
    if whole and not verify and resize is None:
        assert kind is not None
        return data, kind
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata is no concern of ours
            with Image.open(io.BytesIO(data)) as image:
                kind = kind or str(image.format).lower()
                small = _smaller(image, resize) if resize is not None else None
                if small is None and not (whole and not verify):
                    image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        reason = "empty file" if not data else str(error).partition("<")[0].strip()
        raise ValueError(f"{where} is not a whole image ({reason}); replace it with the original") from error
    return (small, "jpg") if small is not None else (data, kind)


def _smaller(image: Image.Image, side: int) -> bytes | None:
    """The image as JPEG with its shorter side of so many pixels (PIL's bicubic); None when it is not larger."""
    width, height = image.size
    if min(width, height) <= side:
        return None
    scale = side / min(width, height)
    size = (side, int(height * scale)) if width <= height else (int(width * scale), side)
    buffer = io.BytesIO()
    small = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    small.save(buffer, format="jpeg", quality=JPEG_QUALITY)
    return buffer.getvalue()
