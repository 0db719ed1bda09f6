"""Read models' logits from tensors or .npy files, in blocks of images."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from xxhash import xxh3_128

from modelsoups.soup.greedy_rule import Evaluation, Score
from modelsoups.soup.holdout import check_labels

CachedLogits = Mapping[str, str | Path | Tensor]  # model's name -> .npy file or logits_NC
Source = Path | Tensor  # one model's logits: a file or logits_NC
PORTION = 2**20  # bytes of a file that are hashed at a time
BLOCK = 2**22  # numbers in memory at a time


def open_logits(cached: CachedLogits, labels_N: Tensor) -> dict[str, Source]:
    """Return each model's logits as given, as a tensor or the path of a file, after a check.

    Raises ValueError for a damaged file, different shapes, or labels that are not 0 to classes - 1.
    """
    opened: dict[str, Source] = {}
    for name, source in cached.items():
        opened[name] = source.detach().cpu() if isinstance(source, Tensor) else check_content(Path(source))
    if not opened:
        raise ValueError("ensemble: no models")
    shapes = {name: shape_of(source) for name, source in opened.items()}
    first = next(iter(shapes.values()))
    for name, shape in shapes.items():
        if len(shape) != 2 or shape != first or shape[0] != len(labels_N) or not len(labels_N):
            raise ValueError(f"{name}: logits {shape}, expected {(len(labels_N), *first[1:])} (images, classes)")
    check_labels(labels_N, first[1])
    return opened


def check_content(path: Path) -> Path:
    """Return `path`; ValueError if a file of `cache_logits` does not match the hash in its name."""
    named = re.fullmatch(r"[0-9a-f]{32}-([0-9a-f]{32})\.npy", path.name)
    if named and _digest_of_file(path) != named[1]:
        way_out = "move it away, and cache the logits again"
        raise ValueError(f"{path} has changed since it was written; {way_out}")
    return path


def digest_of(array: np.ndarray) -> str:
    """Return the XXH3 hash of an array's shape, dtype and values."""
    found = xxh3_128(f"{array.shape} {array.dtype.str}".encode())
    found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _digest_of_file(path: Path) -> str:
    """Return `digest_of` the array in an .npy file, reading PORTION bytes at a time."""
    array = _mapped(path)
    found = xxh3_128(f"{array.shape} {array.dtype.str}".encode())
    with open(path, "rb") as file:
        file.seek(array.offset)
        while part := file.read(PORTION):
            found.update(part)
    return found.hexdigest()


def shape_of(source: Source) -> tuple[int, ...]:
    return tuple(source.shape) if isinstance(source, Tensor) else tuple(_mapped(source).shape)


def blocks(
    sources: Sequence[Source], size: int | None = None, dtype: torch.dtype = torch.float32
) -> Iterator[tuple[slice, Tensor]]:
    """Yield (slice of `size` images, its (K, B, C) logits); by default, BLOCK logits at a time."""
    count, classes = shape_of(sources[0])
    size = size or max(1, BLOCK // (len(sources) * classes))
    for start in range(0, count, size):
        part = slice(start, min(start + size, count))
        block_KBC = torch.empty(len(sources), part.stop - start, classes, dtype=dtype)
        for block_BC, source in zip(block_KBC, sources, strict=True):
            block_BC.copy_(_rows(source, part))
        yield part, block_KBC


def count_correct(name: str, source: Source, labels_N: Tensor) -> int:
    """Return how many images one model gets right; ValueError if its logits are not finite."""
    correct = 0
    for part, block_KBC in blocks([source]):
        if not bool(torch.isfinite(block_KBC).all()):
            raise ValueError(f"{name}: logits contain NaN or infinity")
        correct += int((block_KBC[0].argmax(dim=1) == labels_N[part]).sum())
    return correct


class LogitTotal:
    """The running sum, (N images, C classes), of the logits of a greedy ensemble's members."""

    def __init__(self, sources: Sequence[Source], labels_N: Tensor, dtype: torch.dtype) -> None:
        self.sources, self.labels_N, self.dtype = sources, labels_N, dtype
        self.total_NC = torch.zeros(shape_of(sources[0]), dtype=dtype)
        self.members = 0

    def judge(self, i: int, best: Score, strict: bool, name: str) -> Evaluation:
        """Return how many images the ensemble with model i gets right, and the number of images."""
        correct = 0
        for part, block_KBC in blocks([self.sources[i]], dtype=self.dtype):
            predicted_B = (self.total_NC[part] + block_KBC[0]).argmax(dim=1)
            correct += int((predicted_B == self.labels_N[part]).sum())
        return correct, len(self.labels_N)

    def mean_with(self, i: int) -> Tensor:
        """Return the (N, C) mean of the members' logits and those of model i."""
        own_NC = torch.cat([block_KBC[0] for _, block_KBC in blocks([self.sources[i]], dtype=self.dtype)])
        return (self.total_NC + own_NC) / (self.members + 1)

    def add(self, i: int) -> None:
        self.members += 1
        for part, block_KBC in blocks([self.sources[i]], dtype=self.dtype):
            self.total_NC[part] += block_KBC[0]


def _mapped(path: Path) -> np.memmap:
    """Memory-map an .npy file; ValueError if it is damaged or is not a matrix of floats."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not an .npy file of logits, or truncated ({error})") from error
    if array.ndim != 2 or array.dtype.kind != "f":
        raise ValueError(f"{path}: contains {array.dtype} of shape {array.shape}; expected floats, images by classes")
    return array


def _rows(source: Source, part: slice) -> Tensor:
    """Return the logits of images `part`; a file is memory-mapped only while they are copied."""
    return source[part] if isinstance(source, Tensor) else torch.from_numpy(np.array(_mapped(source)[part]))
