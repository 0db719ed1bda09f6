"""Decodes and crops the images of evaluation sets once for all models, and keeps the pixels.

They are kept in memory or, if they exceed 1 GiB, in the file <set name>-<hash>/pixels.npy. The hash
depends on images, size and package versions. manifest.json has a checksum of the pixels.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from xxhash import xxh3_128

from modelsoups.data.shards import ShardSet
from modelsoups.data.transforms import View, eval_crop, to_uint8
from modelsoups.disk import manifests, storage
from modelsoups.workers.processes import cores

SMALL = 2**30  # bytes of crops: a set up to this size is stored in memory, a larger one in a file
DISK = 64 * 2**30  # bytes of crops: a set above this size, or half of the free disk, gets no file


class Crops(Dataset[Tensor]):
    """A PyTorch data set of images after resize and centre crop, uint8 (3, side, side)."""

    def __init__(self, dataset: ShardSet, view: View) -> None:
        self.dataset, self.crop = dataset, eval_crop(view)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tensor:
        return to_uint8(self.crop(self.dataset.image(index)))


def decoded_bytes(dataset: ShardSet, view: View) -> int:
    return len(dataset) * 3 * view.side**2


@dataclass
class CropStore:
    """A cache of evaluation images after resize and crop: in memory, or for large sets in files."""

    folder: Path
    small: int = SMALL
    disk: int = DISK
    _in_memory: dict[tuple[Path, str, View], Tensor] = field(default_factory=dict)
    _mapped: dict[Path, Tensor] = field(default_factory=dict)

    def pixels(self, dataset: ShardSet, view: View) -> Tensor | None:
        """Return all crops, uint8 (N, 3, side, side); None for a large set without a cache file."""
        if decoded_bytes(dataset, view) <= self.small:
            return self.in_memory(dataset, view)
        place = self._place(dataset, view)
        if place not in self._mapped:
            manifest = manifests.complete(place, _inputs(dataset, view))
            if manifest is None:
                return None
            self._mapped[place] = _checked_map(place / "pixels.npy", manifest["digest"])
        return self._mapped[place]

    def in_memory(self, dataset: ShardSet, view: View) -> Tensor:
        """Return all crops, uint8 (N, 3, side, side), in memory even if the data set is large."""
        key = (dataset.folder, dataset.sha256, view)
        if key not in self._in_memory:
            crops = Crops(dataset, view)
            self._in_memory[key] = torch.stack([crops[i] for i in range(len(crops))])
        return self._in_memory[key]

    def batches(self, dataset: ShardSet, view: View, batch_size: int) -> Iterator[Tensor]:
        """Yield batches of crops in order, uint8 (B, 3, side, side), decoded anew if not cached."""
        pixels_N3SS = self.pixels(dataset, view)
        if pixels_N3SS is not None:
            yield from pixels_N3SS.split(batch_size)
            return
        yield from DataLoader(Crops(dataset, view), batch_size, num_workers=max(1, cores() // 2))

    def prepare(self, dataset: ShardSet, view: View) -> bool:
        """Write a large set's cache file if the disk has room; return whether it was written."""
        place, inputs = self._place(dataset, view), _inputs(dataset, view)
        size = decoded_bytes(dataset, view)
        existing = next(filter(Path.exists, (self.folder, *self.folder.absolute().parents)))
        most = min(self.disk, shutil.disk_usage(existing).free // 2)
        if not self.small < size <= most or manifests.complete(place, inputs):
            return False
        shutil.rmtree(place, ignore_errors=True)
        with storage.new_folder(place, keep=True) as tmp:  # another process may finish first
            digest = _decode(dataset, view, tmp / "pixels.npy")
            manifests.finish(tmp, inputs, [tmp / "pixels.npy"], digest=digest)
        return True

    def _place(self, dataset: ShardSet, view: View) -> Path:
        return self.folder / f"{dataset.folder.name}-{storage.fingerprint(_inputs(dataset, view))}"


def _inputs(dataset: ShardSet, view: View) -> Mapping[str, Any]:
    """Return what determines the pixels: hash of the images, crop, size, package versions."""
    packages = {name: version(name) for name in ("pillow", "torchvision")}
    return {"set": dataset.sha256, "crop": "clip", "side": view.side, **view.changes(), **packages}


def _decode(dataset: ShardSet, view: View, path: Path) -> str:
    """Decode all crops of a set into a .npy file at `path`; return the XXH3 hash of the pixels."""
    pixels_N3SS = np.lib.format.open_memmap(path, "w+", np.uint8, (len(dataset), 3, view.side, view.side))
    storage.allocate(path)
    start = 0
    for pixels_B3SS in DataLoader(Crops(dataset, view), 64, num_workers=max(1, cores() - 1)):
        pixels_N3SS[start : start + len(pixels_B3SS)] = pixels_B3SS.numpy()
        start += len(pixels_B3SS)
    pixels_N3SS.flush()
    return f"xxh3_128:{xxh3_128(pixels_N3SS.data).hexdigest()}"


def _checked_map(path: Path, expected: str) -> Tensor:
    """Memory-map a .npy file of pixels; raise ValueError if their hash differs from `expected`."""
    pixels_N3SS = np.load(path, mmap_mode="c")  # copy on write: torch asks for writable memory
    if f"xxh3_128:{xxh3_128(pixels_N3SS.data).hexdigest()}" != expected:
        way_out = f"move {path.parent} away and run the command again"
        raise ValueError(f"{path} has changed since it was written; {way_out}")
    return torch.from_numpy(pixels_N3SS)
