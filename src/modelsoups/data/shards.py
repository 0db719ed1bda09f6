"""Reads and writes prepared data sets: folders of WebDataset tars, with index files and a manifest.

A tar `{name}-{shard:06d}.tar` has the members `{key}.{png,jpg}` and `{key}.cls` (label). Its index
.npz has each image's key, byte offset, size and label. manifest.json is written last. Data sets
made from class folders also have originals.json, the image file of each key. Sets whose images
belong to groups, such as regions, have groups.npy, the group of each image. The sets of
data.imagenet.relabelled have only index files, which point into the tars of another set.
"""

import contextlib
import functools
import hashlib
import io
import itertools
import os
import resource
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import Any, Self, TypeVar

import numpy as np
from PIL import Image

from modelsoups.data.pictures import DAMAGE, by_pil, reason
from modelsoups.disk import manifests, storage

SHARD_IMAGES = 1000
GROUPS = "groups.npy"
ORIGINALS = "originals.json"  # beside a set of one's own files: the file of each key
DESCRIPTORS = 512  # files that a set may hold open before the limit of the process is raised
DELETE_SHARD = "move that shard away and run `modelsoups prepare`"
REPLACE = (
    "if the original image opens, move the shard away and run `modelsoups prepare`; otherwise "
    "replace the image and run `modelsoups prepare` with a new data.dir=..."
)
ANEW = "write the set again, with a new data.dir=..."
RESTORE = "restore this file or run `modelsoups prepare`, then rerun the same command to continue"
Decoded = TypeVar("Decoded")
Json = dict[str, Any]
Sample = tuple[str, bytes, str, int]  # key, encoded image, its file name extension, label
COLUMNS = {"key": np.bytes_, "offset": np.int64, "size": np.int64, "label": np.int64}  # of an index


class CorruptImage(ValueError):
    """Raised for an image that cannot be decoded although all of its bytes are there."""

    @classmethod
    def at(cls, where: str, reason: object, way_out: str = DELETE_SHARD) -> Self:
        return cls(f"{where} is corrupt ({reason}); {way_out}")


def encode_png(image_HWC: np.ndarray) -> bytes:
    """Encode a uint8 RGB array (H, W, 3) as PNG; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def write_shard(tar: Path, samples: Iterable[Sample]) -> Json:
    """Write a tar and its index; return name, image count, size and sha256 for the manifest."""
    import webdataset  # it loads torch, which readers of shards do not need

    rows: list[tuple[str, int, int, int]] = []  # the values of COLUMNS
    with storage.atomic(tar) as tmp:
        with open(tmp, "wb") as file, webdataset.TarWriter(file, mtime=0) as writer:
            for key, image, extension, label in samples:
                writer.write({"__key__": key, extension: image, "cls": str(label)})
                label_bytes = 2 * BLOCKSIZE if extension < "cls" else 0  # sorted by name
                padded = -(-len(image) // BLOCKSIZE) * BLOCKSIZE
                rows.append((key, writer.tarstream.offset - label_bytes - padded, len(image), label))
        if not rows:
            raise ValueError(f"{tar.name} is empty; a shard needs at least one image")
    index: dict[str, np.ndarray] = {}
    for (name, kind), values in zip(COLUMNS.items(), zip(*rows, strict=True), strict=True):
        index[name] = np.array(values, dtype=kind)
    size, digest = tar.stat().st_size, storage.file_sha256(tar)
    with storage.atomic(tar.with_suffix(".npz")) as tmp, open(tmp, "wb") as file:
        np.savez(file, allow_pickle=False, **index, bytes=np.array(size), sha256=np.array(digest))
    return _entry(tar, len(rows), size, digest)


def _entry(tar: Path, images: int, size: int, sha256: str) -> Json:
    return {"file": tar.name, "images": images, "bytes": size, "sha256": sha256}


def finished(tar: Path, keys_N: np.ndarray) -> Json | None:
    """Return a shard's manifest entry if it is complete and has these image keys, else None."""
    try:
        with np.load(tar.with_suffix(".npz"), allow_pickle=False) as columns:
            same = np.array_equal(columns["key"], keys_N)
            size, sha256 = int(columns["bytes"]), str(columns["sha256"])
        complete = same and tar.stat().st_size == size
    except (KeyError, ValueError, OSError, zipfile.BadZipFile):
        return None  # missing, damaged or of a different version
    return _entry(tar, len(keys_N), size, sha256) if complete else None


def write_set(folder: Path, samples: Iterator[Sample], images: int, inputs: Json, facts: Json) -> int:
    """Write a data set in shards of `images` images, then its manifest; return the image count."""
    entries = list[Json]()
    while block := list(itertools.islice(samples, images)):
        entries.append(write_shard(folder / f"{folder.name}-{len(entries):06d}.tar", block))
    finish_set(folder, inputs, entries, facts)
    return sum(entry["images"] for entry in entries)


def key_of_several(start: str, classes: Sequence[int]) -> str:
    """Return the key of an image with several correct classes, which stand at its end: start_5-17."""
    return f"{start}_{'-'.join(map(str, classes))}"


def write_groups(folder: Path, groups_N: np.ndarray, names: Sequence[str]) -> Json:
    """Write the group of each image, -1 for none; return what the manifest has of it, for `facts`."""
    with storage.atomic(folder / GROUPS) as tmp, open(tmp, "wb") as file:
        np.save(file, groups_N.astype(np.int16), allow_pickle=False)
    return {"groups": {"names": list(names), "sha256": storage.file_sha256(folder / GROUPS)}}


def finish_set(folder: Path, inputs: Json, shards: list[Json], facts: Json) -> None:
    """Write the manifest of a data set whose shards are complete.

    The keys of facts are name, title, role, classes, templates (prompts), projection (which logits
    belong to which label), and optional ones such as border (pixels to cut off each side), groups, and
    several (whether images have several correct classes; see `key_of_several`).
    """
    identity = {key: facts[key] for key in ("projection", "classes")}
    identity |= {"border": facts["border"]} if facts.get("border") else {}
    identity |= {"groups": facts["groups"]} if facts.get("groups") else {}
    identity["shards"] = [shard["sha256"] for shard in shards]
    digest = hashlib.sha256(storage.fingerprint(identity).encode()).hexdigest()
    tars = [folder / shard["file"] for shard in shards]
    files = [*tars, *(tar.with_suffix(".npz") for tar in tars)]
    files += [folder / GROUPS] if facts.get("groups") else []
    images = sum(shard["images"] for shard in shards)
    manifests.finish(folder, inputs, files, **facts, images=images, sha256=digest, shards=shards)


def _check_digests(folder: Path, shards: list[Json]) -> None:
    """Raise ValueError if the content of a tar differs from its SHA-256 in the manifest.

    Only tars newer than the manifest are read, as after a copy of the folder. If all are unchanged,
    the manifest's modification time is set to now, so the next opening does not read them again.
    """
    manifest = folder / manifests.MANIFEST
    finished_at = manifest.stat().st_mtime
    late = [shard for shard in shards if (folder / shard["file"]).stat().st_mtime > finished_at]
    for shard in late:
        if storage.file_sha256(folder / shard["file"]) != shard["sha256"]:
            raise ValueError(
                f"{folder / shard['file']} has changed since it was written; run `modelsoups prepare` to {ANEW}"
            )
    if late:
        with contextlib.suppress(OSError):
            os.utime(manifest)


class ShardSet:
    """A prepared data set on disk, whose images can be read in any order.

    If a test set has only some of `classes`, `projection` says which logits belong to each of its
    labels. `kept` is a cache of decoded images, by decoder and index. Raises ValueError if the
    folder is missing or incomplete.
    """

    unit = "images"  # in messages

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / manifests.MANIFEST
        if not path.exists():
            raise ValueError(f"{folder} contains no prepared data set; run `modelsoups prepare`")
        manifest = storage.read_object(path, "inputs", "files", "name", "shards", "sha256")
        for name, size in manifest["files"].items():
            file = folder / name
            actual = file.stat().st_size if file.exists() else None
            if actual != size:
                state = "is missing" if actual is None else f"is truncated or changed ({actual} bytes, not {size})"
                raise ValueError(f"{file} {state}; run `modelsoups prepare` to rewrite it")
        self.name: str = manifest["name"]
        self.title: str = manifest["title"]
        self.role: str = manifest["role"]
        self.classes: list[str] = manifest["classes"]
        self.templates: list[str] = manifest["templates"]
        self.projection: Json | None = manifest["projection"]
        self.sha256: str = manifest["sha256"]
        self.by_content = manifest["inputs"].get("library") == "folders"  # keys: hashes of files
        self.border: int = manifest.get("border", 0)  # pixels to cut off each side
        self.scoring: Json | None = manifest.get("scoring")  # None: top 1 of labels_N
        self._several: bool = manifest.get("several", False)
        self._groups: Json | None = manifest.get("groups")  # None: the images have no groups
        self.kept: dict[str, dict[int, Any]] = {}
        self.bytes = sum(shard["bytes"] for shard in manifest["shards"])
        for shard in manifest["shards"]:
            tar = folder / shard["file"]
            if "index" in shard and (not tar.exists() or tar.stat().st_size != shard["bytes"]):
                way_out = f"move {folder} away (it has no images) and run `modelsoups prepare`"
                raise ValueError(f"{tar} has changed since {folder} was created from it; {way_out}")
        _check_digests(folder, manifest["shards"])
        self._open(manifest["shards"])

    def _open(self, shards: list[Json]) -> None:
        """Read the shards' index files; each process opens a tar when it first reads from it."""
        self._tars = [self.folder / shard["file"] for shard in shards]
        parts: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}
        for shard, tar in zip(shards, self._tars, strict=True):
            index = self.folder / shard["index"] if "index" in shard else tar.with_suffix(".npz")
            with np.load(index, allow_pickle=False) as columns:
                for name, found in parts.items():
                    found.append(columns[name])
        if len(shards) > DESCRIPTORS:  # ImageNet's 1,256 exceed the usual soft limit of 1,024
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._files: dict[int, int] = {}  # shard -> file descriptor
        self._owner = os.getpid()
        self._shard_N = np.repeat(np.arange(len(shards)), list(map(len, parts["key"])))
        self.keys_N = np.concatenate(parts["key"]).astype(str)
        self.labels_N = np.concatenate(parts["label"])
        self.offset_N = np.concatenate(parts["offset"])  # bytes from the start of the tar
        self._size_N = np.concatenate(parts["size"])

    def __reduce__(self) -> "tuple[type[ShardSet], tuple[Path]]":  # another process reopens it
        return ShardSet, (self.folder,)

    def __len__(self) -> int:
        return len(self.labels_N)

    def read(self, index: int) -> bytes:
        """Return an image's encoded bytes; raise ValueError if its tar can no longer be read."""
        if self._owner != os.getpid():  # after a fork, reopen the files
            self._files, self._owner = {}, os.getpid()
        shard, size = int(self._shard_N[index]), int(self._size_N[index])
        try:
            if shard not in self._files:
                self._files[shard] = os.open(self._tars[shard], os.O_RDONLY)
            data = os.pread(self._files[shard], size, int(self.offset_N[index]))
        except OSError as error:
            raise ValueError(f"{self._tars[shard]} can no longer be read ({error.strerror}); {RESTORE}") from error
        if len(data) != size:
            raise ValueError(f"{self._tars[shard]} was truncated while in use; {RESTORE}")
        return data

    def image(self, index: int) -> Image.Image:
        """Return an image in RGB, decoded by PIL; raise CorruptImage if that fails."""
        return self.decoded(index, by_pil)

    def decoded(self, index: int, decoder: Callable[[bytes, int], Decoded]) -> Decoded:
        """Decode an image with `decoder`; raise CorruptImage, with tar and key, if that fails."""
        data = self.read(index)
        try:
            return decoder(data, self.border)
        except DAMAGE as error:
            raise CorruptImage.at(self.where(index), reason(error), self.way_out) from error

    @functools.cached_property
    def groups_N(self) -> np.ndarray:
        """The group of each image, -1 for none; ValueError if the set has no groups, or other ones by now."""
        if self._groups is None:
            way_out = "choose data.score=accuracy or macro_f1"
            raise ValueError(f"{self.folder}: its images have no groups, which data.score=worst_group needs; {way_out}")
        path = self.folder / GROUPS
        if storage.file_sha256(path) != self._groups["sha256"]:
            raise ValueError(f"{path} has changed since it was written; {ANEW}")
        found: np.ndarray = np.load(path, allow_pickle=False)
        return found

    @functools.cached_property
    def answers_NA(self) -> np.ndarray | None:
        """The correct classes of each image, padded with -1; None if each image has one, its label."""
        if not self._several:
            return None
        answers = [list(map(int, str(key).rpartition("_")[2].split("-"))) for key in self.keys_N]
        found = np.full((len(answers), max(map(len, answers))), -1)
        for row, classes in zip(found, answers, strict=True):
            row[: len(classes)] = classes
        return found

    def where(self, index: int) -> str:
        """Return an image's tar file, key, and original file if it is known, for error messages."""
        key = str(self.keys_N[index])
        original = f", made from {self._originals[key]}," if key in self._originals else ""
        return f"{self._tars[int(self._shard_N[index])]}: image {key}{original}"

    @property
    def way_out(self) -> str:
        """Return what the user can do about an image that cannot be decoded, for error messages."""
        return REPLACE if self._originals else DELETE_SHARD

    @functools.cached_property
    def _originals(self) -> dict[str, str]:
        """Return each key's original image file, from originals.json; empty without that file."""
        path = self.folder / ORIGINALS
        return dict(storage.read_json(path)) if path.exists() else {}


def check_disjoint(train: ShardSet, holdout: ShardSet) -> None:
    """Raise ValueError if an image is in both the training set and the hold-out."""
    both = np.intersect1d(train.keys_N, holdout.keys_N)
    if len(both):
        shared = f"{holdout.folder} and {train.folder} share {len(both):,} {train.unit}, first {both[0]}"
        way_out = "remove them from one set and run `modelsoups prepare` with a new data.dir=..."
        reason = f"soups must be trained, chosen and tested on different {train.unit}"
        raise ValueError(f"{shared}; {reason}: {way_out}")


def check_test(test: ShardSet, others: Iterable[ShardSet]) -> None:
    """Raise ValueError if a test image is in one of `others` (only sets from class folders)."""
    for other in others:
        if test.by_content and other.by_content:
            check_disjoint(other, test)
