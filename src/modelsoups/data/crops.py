"""A data set decoded and cropped once for all models and processes: a memory-mapped file of uint8 pixels.

Content-addressed by the set's manifest, the crop and the versions of what decodes: another of these is another folder,
`{name}-{key}/` with pixels.npy and, written last, manifest.json with the digest of the pixels.

Legend: N images of the set, S their side.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from xxhash import xxh3_128

from modelsoups.data import crops as decoded
from modelsoups.data.shards import ShardSet
from modelsoups.data.transforms import eval_crop, to_uint8
from modelsoups.disk import manifests, storage
from modelsoups.workers.processes import cores

BUDGET = 64 * 2**30  # bytes of one set, and at most half of what is free: ImageNet's 50,000 images have 7.5 GB
SLICE = 2**24  # bytes that are hashed at a time


class Crops(torch.utils.data.Dataset[Tensor]):
    """pixels_CSS of each image, as CLIP evaluates."""

    def __init__(self, dataset: ShardSet, side: int) -> None:
        self.dataset, self.crop = dataset, eval_crop(side)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tensor:
        return to_uint8(self.crop(self.dataset.image(index)))


def size(dataset: ShardSet, side: int) -> int:
    """Bytes of a set's pixels."""
    return len(dataset) * 3 * side**2


def fits(dataset: ShardSet, side: int, folder: Path) -> bool:
    """Whether the set's pixels are within the budget and half of the free disk."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    return size(dataset, side) <= min(BUDGET, shutil.disk_usage(there).free // 2)


def write(dataset: ShardSet, side: int, folder: Path) -> bool:
    """Decode a set into its place under `folder`, on every core, unless it is there; whether that was needed.

    Two processes may do so at once: each writes a folder of its own, and the first one stays.
    """
    place = _place(dataset, side, folder)
    if manifests.complete(place, _inputs(dataset, side)):
        return False
    shutil.rmtree(place, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=folder) as name:
        tmp = Path(name) / place.name  # with the rights that the user's folders have
        tmp.mkdir()
        with storage.atomic(tmp / "pixels.npy") as file:
            hashed = _decode(dataset, side, file)
        manifests.finish(tmp, _inputs(dataset, side), [tmp / "pixels.npy"], digest=hashed)
        if not place.exists():
            tmp.rename(place)
    return True


def _decode(dataset: ShardSet, side: int, path: Path) -> str:
    shape = (len(dataset), 3, side, side)
    pixels_NCSS = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    loader = torch.utils.data.DataLoader(Crops(dataset, side), 64, num_workers=max(1, cores() - 1))
    hashed, at = xxh3_128(), 0
    for pixels_BCSS in loader:
        hashed.update(pixels_BCSS.numpy().data)
        pixels_NCSS[at : at + len(pixels_BCSS)] = pixels_BCSS.numpy()
        at += len(pixels_BCSS)
    pixels_NCSS.flush()
    return f"xxh3_128:{hashed.hexdigest()}"


def read(dataset: ShardSet, side: int, folder: Path) -> Tensor | None:
    """pixels_NCSS of a set in a memory map that is not to be written to, or None where they have not been written.

    ValueError names the file when it is not what was written; it is read for that once a process.
    """
    place = _place(dataset, side, folder)
    manifest = manifests.complete(place, _inputs(dataset, side))
    return None if manifest is None else _mapped(place / "pixels.npy", manifest["digest"])


@functools.lru_cache(maxsize=64)
def _mapped(path: Path, expected: str) -> Tensor:
    pixels_NCSS = np.load(path, mmap_mode="c")  # copy on write: torch wants writable memory, the file stays
    flat, hashed = pixels_NCSS.reshape(-1), xxh3_128()
    for start in range(0, len(flat), SLICE):
        hashed.update(flat[start : start + SLICE].data)
    if f"xxh3_128:{hashed.hexdigest()}" != expected:
        raise ValueError(f"{path} has changed since it was made; delete {path.parent} to make it again")
    return torch.from_numpy(pixels_NCSS)


def _place(dataset: ShardSet, side: int, folder: Path) -> Path:
    return folder / f"{dataset.folder.name}-{storage.fingerprint(_inputs(dataset, side))}"


def _inputs(dataset: ShardSet, side: int) -> dict[str, Any]:
    """What the pixels depend on."""
    packages = {name: version(name) for name in ("pillow", "torchvision")}
    return {"set": dataset.sha256, "crop": "clip", "side": side, **packages}


@functools.lru_cache(maxsize=16)
def all_pixels(folder: str, sha256: str, image_size: int) -> Tensor:
    """Every image of a small set, decoded once for all models: uint8 pixels_NCHW. sha256 is part of the key."""
    crops = decoded.Crops(ShardSet(Path(folder)), image_size)
    return torch.stack([crops[i] for i in range(len(crops))])
