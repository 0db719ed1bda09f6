"""Writes images to tar shards in parallel; reuses the complete shards of an interrupted command."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelsoups.data import shards
from modelsoups.data.imagenet.listing import Listing
from modelsoups.data.shards import Json
from modelsoups.data.storing import Storing, stored
from modelsoups.disk import storage
from modelsoups.workers.processes import advance

PLAN = "plan.json"  # in the folder of an incomplete set: its inputs
REPORT_EVERY = 50  # images


@dataclass(frozen=True)
class Shard:
    """A tar shard that one task writes: its path, its images and how to store them."""

    tar: Path
    images: Listing
    storing: Storing

    def __str__(self) -> str:
        return self.tar.name

    def __len__(self) -> int:
        return len(self.images)


def cut(folder: Path, listing: Listing, images: int, storing: Storing) -> list[Shard]:
    """Divide a list of images into shards of `images` images each; the last may have fewer."""
    starts = range(0, len(listing), images)
    parts = [listing.take(slice(start, start + images)) for start in starts]
    tars = [folder / f"{folder.name}-{number:06d}.tar" for number in range(len(parts))]
    return [Shard(tar, part, storing) for tar, part in zip(tars, parts, strict=True)]


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
        data, kind = stored(images.read(row), images.where(row), shard.storing)
        yield images.key(row), data, kind, int(images.label_N[row])
        if row % REPORT_EVERY == REPORT_EVERY - 1:
            advance(REPORT_EVERY)
    advance(len(images) % REPORT_EVERY)
