"""Prepared data sets: WebDataset tar shards, an index for reading any image in any order, and a manifest.

A set is a folder: `{name}-{shard:06d}.tar` with members `{key}.{png,jpg}` and `{key}.cls`, beside each tar its
index `{name}-{shard:06d}.npz` (key, offset, size, label of each image; the tar's bytes and sha256), and manifest.json,
written last. The tars are plain WebDataset shards that any other loader reads too. A set of other labels for the same
images has an index of its own over another set's tars (see `data.imagenet.relabel`).
"""

from __future__ import annotations

import hashlib
import io
import os
import resource
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from modelsoups.disk import manifests, storage

SHARD_IMAGES = 1000
AGAIN = "bring it back or run `modelsoups prepare`, then give the same command again: it continues"
BLOCK = 512  # bytes: members of a tar begin at multiples of it, after a header of one
Picture = TypeVar("Picture")
Sample = tuple[str, bytes, str, int]  # key, encoded image, its extension, label


class CorruptImage(ValueError):
    """An image that is there in full, and cannot be decoded."""


def encode_png(image_HWC: np.ndarray) -> bytes:
    """A uint8 RGB array as PNG; the same array gives the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def write_shard(tar: Path, samples: Iterable[Sample]) -> dict[str, Any]:
    """Write one shard and its index, each atomically, index last; the shard's entry of the manifest is returned.

    Samples are written as they come, one in memory at a time.
    """
    import webdataset  # which loads torch: readers need neither

    rows: list[tuple[str, int, int, int]] = []  # key, offset, size, label
    with storage.atomic(tar) as tmp, open(tmp, "wb") as file:
        hashed = _Hashed(file)
        with webdataset.TarWriter(hashed, mtime=0) as writer:
            for key, image, extension, label in samples:
                writer.write({"__key__": key, extension: image, "cls": str(label)})
                end = writer.tarstream.offset - (2 * BLOCK if extension < "cls" else 0)  # members are sorted by name
                rows.append((key, end - -(-len(image) // BLOCK) * BLOCK, len(image), label))
        if not rows:
            raise ValueError(f"{tar.name}: a shard needs at least one image")
    keys, offsets, sizes, labels = zip(*rows, strict=True)
    entry = {"file": tar.name, "images": len(rows), "bytes": tar.stat().st_size, "sha256": hashed.digest.hexdigest()}
    columns = {
        "key": np.array(keys, dtype=np.bytes_),
        "offset": np.array(offsets, dtype=np.int64),
        "size": np.array(sizes, dtype=np.int64),
        "label": np.array(labels, dtype=np.int64),
        "bytes": np.array(entry["bytes"]),
        "sha256": np.array(entry["sha256"]),
    }
    with storage.atomic(tar.with_suffix(".npz")) as tmp, open(tmp, "wb") as file:
        np.savez(file, allow_pickle=False, **columns)
    return entry


class _Hashed:
    """A file that is written once, from its beginning to its end, and hashed on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)


def finished(tar: Path, keys_N: np.ndarray) -> dict[str, Any] | None:
    """The manifest's entry of a shard that is there in full and holds these images, else None."""
    index = tar.with_suffix(".npz")
    if not (tar.exists() and index.exists()):
        return None
    try:
        with np.load(index, allow_pickle=False) as columns:
            same = np.array_equal(columns["key"], keys_N)
            size, sha256 = int(columns["bytes"]), str(columns["sha256"])
    except (KeyError, ValueError, OSError, zipfile.BadZipFile):
        return None  # of another version, or damaged
    if not same or tar.stat().st_size != size:
        return None
    return {"file": tar.name, "images": len(keys_N), "bytes": size, "sha256": sha256}


def finish_set(folder: Path, inputs: dict[str, Any], shards: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    """Write the manifest of a set whose shards are all there.

    facts are what readers need beside the images: name, title, role, classes, templates, projection; optionally
    border, the pixels to cut off each side of every image, and whatever else is worth keeping.
    """
    identity = {"shards": [s["sha256"] for s in shards], "projection": facts["projection"], "classes": facts["classes"]}
    if facts.get("border"):
        identity["border"] = facts["border"]
    digest = hashlib.sha256(storage.fingerprint(identity).encode()).hexdigest()
    files = [folder / s["file"] for s in shards] + [(folder / s["file"]).with_suffix(".npz") for s in shards]
    images = sum(s["images"] for s in shards)
    manifests.finish(folder, inputs, files, **facts, images=images, sha256=digest, shards=shards)


class ShardSet:
    """One prepared set, read in any order; see the module for its files.

    labels_N are positions in the set's own label space: `projection` says how logits over `classes` become logits
    over it (`core.metrics.project`). Raises ValueError naming the file when the set is missing or incomplete.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / manifests.MANIFEST
        if not path.exists():
            raise ValueError(f"{folder} holds no prepared data set; run `modelsoups prepare`")
        manifest = storage.read_json(path)
        for name, size in manifest["files"].items():
            file = folder / name
            actual = file.stat().st_size if file.exists() else None
            if actual != size:
                state = "is missing" if actual is None else f"is truncated or changed ({actual} bytes, not {size})"
                raise ValueError(f"{file} {state}; run `modelsoups prepare` to make it again")
        self.name: str = manifest["name"]
        self.title: str = manifest["title"]
        self.role: str = manifest["role"]
        self.classes: list[str] = manifest["classes"]
        self.templates: list[str] = manifest["templates"]
        self.projection: dict[str, Any] | None = manifest["projection"]
        self.sha256: str = manifest["sha256"]
        self.border: int = manifest.get("border", 0)  # pixels cut off each side
        self.scoring: dict[str, Any] | None = manifest.get("scoring")  # None: top 1 against labels_N
        self.bytes = sum(s["bytes"] for s in manifest["shards"])
        for shard in manifest["shards"]:
            tar = folder / shard["file"]
            if "index" in shard and (not tar.exists() or tar.stat().st_size != shard["bytes"]):
                raise ValueError(f"{tar} is not the one that {folder} was made over; delete {folder}, then run prepare")
        self._read_index([(s["file"], s.get("index")) for s in manifest["shards"]])

    def _read_index(self, files: list[tuple[str, str | None]]) -> None:
        columns = []
        for tar, index in files:
            with np.load(self.folder / (index or Path(tar).with_suffix(".npz")), allow_pickle=False) as arrays:
                columns.append({k: arrays[k] for k in ("key", "offset", "size", "label")})
        self._tars = tars = [self.folder / tar for tar, _ in files]
        if len(tars) > 512:  # one descriptor each: ImageNet's 1,256 exceed the usual soft limit of 1,024
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._files: dict[int, int] = {}  # shard -> file descriptor, opened on first use in each process
        self._owner = os.getpid()
        self._shard_N = np.repeat(np.arange(len(tars)), [len(c["key"]) for c in columns])
        self._offset_N = np.concatenate([c["offset"] for c in columns])
        self._size_N = np.concatenate([c["size"] for c in columns])
        self.keys_N = np.concatenate([c["key"] for c in columns]).astype(str)
        self.labels_N = np.concatenate([c["label"] for c in columns])

    def __len__(self) -> int:
        return len(self.labels_N)

    def read(self, index: int) -> bytes:
        """The encoded image; ValueError names a shard that is gone, cut off or unreadable since the set was opened."""
        if self._owner != os.getpid():  # descriptors of a parent process share its file position and lifetime
            self._files, self._owner = {}, os.getpid()
        shard, size = int(self._shard_N[index]), int(self._size_N[index])
        try:
            if shard not in self._files:
                self._files[shard] = os.open(self._tars[shard], os.O_RDONLY)
            data = os.pread(self._files[shard], size, int(self._offset_N[index]))
        except OSError as error:
            raise ValueError(f"{self._tars[shard]} cannot be read any more ({error.strerror}); {AGAIN}") from error
        if len(data) != size:
            raise ValueError(f"{self._tars[shard]} was cut off while it was in use; {AGAIN}")
        return data

    def image(self, index: int) -> Image.Image:
        """The decoded image as RGB; CorruptImage names the shard and the key of one that cannot be decoded."""
        return self.decoded(index, by_pil)

    def decoded(self, index: int, decoder: Callable[[bytes, int], Picture]) -> Picture:
        """The image by a decoder of `data.decode`; CorruptImage as for image()."""
        data = self.read(index)
        try:
            return decoder(data, self.border)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise CorruptImage(
                f"{self.where(index)} is corrupt ({error}); run `modelsoups prepare` after deleting that shard"
            ) from error

    def where(self, index: int) -> str:
        """Shard and key of an image, for messages."""
        return f"{self._tars[int(self._shard_N[index])]}: image {self.keys_N[index]}"


def by_pil(data: bytes, border: int = 0) -> Image.Image:
    """An image as RGB, without `border` pixels on each side. Raises what PIL does when it is corrupt."""
    image: Image.Image = Image.open(io.BytesIO(data))
    image = image if image.mode == "RGB" and image.load() else image.convert("RGB")
    if border:
        width, height = image.size
        image = image.crop((border, border, width - border, height - border))
    return image


def check_disjoint(train: ShardSet, holdout: ShardSet) -> None:
    """Raise ValueError naming an image that lies in both sets; called before anything is trained or chosen."""
    both = np.intersect1d(train.keys_N, holdout.keys_N)
    if len(both):
        raise ValueError(
            f"images of {holdout.folder} that are in {train.folder} too: {len(both):,}, first {both[0]}: the hold-out "
            "would be trained on; delete both folders and run `modelsoups prepare`"
        )
