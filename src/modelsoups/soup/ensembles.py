"""Ensembles from cached logits: any subset, weights, greedy, calibration; no forward pass is made twice.

A model's logits are one .npy file of N images by C classes (float16 or wider), read in blocks of images from the front
to the back. Memory: one block of every model that is asked for at once (BLOCK numbers), and for the greedy ensemble one
float32 sum, 4 N C bytes (0.8 GB for 200,000 images and 1,000 classes); never K of anything.
Legend: K models, N images, B of a block, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from modelsoups.disk import storage
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.holdout import Holdout
from modelsoups.soup.library import Sources, hashes, open_all
from modelsoups.stats.calibration import BINS, ece_of
from modelsoups.weights.state_dicts import EVERYTHING

Cached = Mapping[str, "str | Path | Tensor"]  # name -> .npy file or logits_NC
BLOCK = 2**22  # numbers in memory at a time


@dataclass(frozen=True)
class Scores:
    """Of n images: right at top 1, mean cross-entropy (nats), and calibration error (`core.calibration.ece`)."""

    n: int
    correct: int
    loss: float
    calibration_error: float

    @property
    def accuracy(self) -> float:
        return self.correct / self.n


def cache_logits(sources: Sources, holdout: Holdout, folder: str | Path) -> dict[str, Path]:
    """A float16 .npy file of the hold-out's logits for every checkpoint; those that are there are not made again.

    Files are named by the hash of the checkpoint, so a folder belongs to one hold-out. Raises ValueError naming the
    checkpoint whose logits are not finite, also in float16.
    """
    found = {}
    checkpoints = open_all(sources)
    for checkpoint, sha in zip(checkpoints, hashes(checkpoints), strict=True):
        path = found[checkpoint.name] = Path(folder) / f"{sha[:16]}.npy"
        if path.exists():
            if (shape := _File(path).shape)[0] != len(holdout):
                raise ValueError(
                    f"{path}: logits of {shape[0]} images, the hold-out has {len(holdout)}; another folder"
                )
            continue
        logits_NC = holdout.logits(checkpoint).to(torch.float16)
        if not bool(torch.isfinite(logits_NC).all()):
            raise ValueError(f"{checkpoint.name}: hold-out logits hold NaN or infinity, or do not fit into float16")
        with storage.atomic(path) as tmp, open(tmp, "wb") as file:
            np.save(file, logits_NC.numpy())
    return found


def ensemble(logits: Cached, labels_N: Tensor, weights: Sequence[float] | None = None, beta: float = 1.0) -> Scores:
    """Scores of beta * sum_k w_k logits_k (by default their mean; section 3.1: logits, not probabilities)."""
    opened = _open(logits, labels_N)
    row = [1 / len(opened)] * len(opened) if weights is None else list(weights)
    if len(row) != len(opened):
        raise ValueError(f"ensemble: {len(row)} weights for {len(opened)} models")
    n, loss = len(labels_N), 0.0
    confident_N, right_N = torch.empty(n), torch.empty(n, dtype=torch.bool)
    for part, block_KBC in _blocks(opened):
        logits_BC = beta * torch.einsum("k,kbc->bc", torch.tensor(row), block_KBC)
        if not bool(torch.isfinite(logits_BC).all()):
            raise ValueError("ensemble: logits hold NaN or infinity")
        labels_B = labels_N[part]
        confident_N[part], chosen_B = logits_BC.softmax(dim=1).max(dim=1)
        right_N[part] = chosen_B == labels_B
        loss += float(F.cross_entropy(logits_BC, labels_B, reduction="sum"))
    return Scores(n, int(right_N.sum()), loss / n, ece_of(confident_N.double(), right_N, min(BINS, n)))


def greedy_ensemble(logits: Cached, labels_N: Tensor, *, strict: bool = False) -> Soup:
    """Recipe 1 with the mean of logits in place of the mean of weights (table 3)."""
    opened = _open(logits, labels_N)
    right = [_correct(name, model, labels_N) for name, model in opened.items()]
    names, n = list(opened), len(labels_N)
    order = sorted(range(len(names)), key=lambda i: (right[i], i), reverse=True)  # of equals the later, as in Pool
    members: list[int] = []
    total_NC = torch.zeros(n, opened[names[0]].shape[1])
    trace: list[dict[str, Any]] = []
    best = 0
    for i in order:
        model = opened[names[i]]
        count = sum(
            int(((total_NC[part] + block_KBC[0]).argmax(dim=1) == labels_N[part]).sum())
            for part, block_KBC in _blocks({names[i]: model})
        )
        kept = not members or (count > best if strict else count >= best)
        if kept:
            members.append(i)
            best = count
            for part, block_KBC in _blocks({names[i]: model}):
                total_NC[part] += block_KBC[0]
        trace.append({"ingredient": names[i], "correct": count, "n": n, "kept": kept, "best": best})
    return _soup(
        "greedy_ensemble", {names[i]: opened[names[i]] for i in members}, [1 / len(members)] * len(members), trace
    )


def learned_ensemble(
    logits: Cached, labels_N: Tensor, *, epochs: int = 3, lr: float = 0.1, batch_size: int = 256
) -> Soup:
    """Softmax weights of the models and beta by AdamW on the cross-entropy, as `learned` does for weights (eq. 2).

    Batches are blocks of neighbouring images, in order: shuffle the images beforehand if they are sorted by class.
    """
    opened = _open(logits, labels_N)
    if epochs < 1 or batch_size < 1 or not 0 < lr < math.inf:
        raise ValueError(f"learned_ensemble: epochs={epochs}, lr={lr}, batch_size={batch_size}; expected all above 0")
    raw_K, beta = torch.zeros(len(opened), requires_grad=True), torch.ones((), requires_grad=True)
    optimizer = torch.optim.AdamW([raw_K, beta], lr=lr, weight_decay=0.0)
    trace: list[dict[str, Any]] = []
    for epoch in range(epochs):
        for part, block_KBC in _blocks(opened, batch_size):
            logits_BC = beta * torch.einsum("k,kbc->bc", raw_K.softmax(dim=0), block_KBC)
            loss = F.cross_entropy(logits_BC, labels_N[part])
            if not math.isfinite(float(loss.detach())):
                raise ValueError(f"learned_ensemble: the loss is not finite at step {len(trace)}; lower lr={lr}")
            trace.append({"step": len(trace), "epoch": epoch, "loss": float(loss.detach())})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return _soup("learned_ensemble", opened, raw_K.detach().softmax(dim=0).tolist(), trace, beta.item())


def calibrated(logits: Cached, labels_N: Tensor, weights: Sequence[float] | None = None) -> float:
    """The beta (1 / temperature) that minimizes the ensemble's cross-entropy (Guo et al. 2017), by Newton's method.

    The loss is convex in beta; a step is one pass. Stays above 0.001; ends when beta moves by less than 1e-6 of itself.
    """
    opened = _open(logits, labels_N)
    row_K = torch.tensor([1 / len(opened)] * len(opened) if weights is None else list(weights))
    beta = 1.0
    for _ in range(100):
        slope = curve = 0.0
        for part, block_KBC in _blocks(opened):
            logits_BC = torch.einsum("k,kbc->bc", row_K, block_KBC).double()
            p_BC = (beta * logits_BC).softmax(dim=1)
            mean_B = (p_BC * logits_BC).sum(dim=1)
            slope += float((mean_B - logits_BC.gather(1, labels_N[part][:, None])[:, 0]).sum())
            curve += float(((p_BC * logits_BC.square()).sum(dim=1) - mean_B.square()).sum())
        step = slope / curve if curve > 0 else 0.0
        moved = min(max(beta - step, beta / 2, 1e-3), 2 * beta)  # a factor of two at most: far from the minimum
        if abs(moved - beta) <= 1e-6 * beta:
            return moved
        beta = moved
    return beta


# ---- logits on disk ----


class _File:
    """An .npy file of N x C logits, read by blocks of rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, fortran, self.dtype = read(file)
                self.start = file.tell()
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: not an .npy file of logits ({error})") from error
        if len(shape) != 2 or fortran or self.dtype.kind != "f":
            raise ValueError(f"{path}: holds {self.dtype} of shape {shape}; expected floats, images by classes")
        self.shape: tuple[int, ...] = shape
        if path.stat().st_size < self.start + math.prod(shape) * self.dtype.itemsize:
            raise ValueError(f"{path} was cut off; delete it and make it again")

    def rows(self, start: int, stop: int) -> Tensor:
        classes = self.shape[1]
        offset = self.start + start * classes * self.dtype.itemsize
        block = np.fromfile(self.path, self.dtype, (stop - start) * classes, offset=offset)
        return torch.from_numpy(block).reshape(stop - start, classes)

    def sha256(self) -> str:
        with open(self.path, "rb") as file:
            digest = sha256()
            while chunk := file.read(2**22):
                digest.update(chunk)
        return digest.hexdigest()


class _Held:
    """Logits in memory."""

    def __init__(self, logits_NC: Tensor) -> None:
        self.logits_NC, self.shape = logits_NC.detach().cpu(), tuple(logits_NC.shape)

    def rows(self, start: int, stop: int) -> Tensor:
        return self.logits_NC[start:stop]

    def sha256(self) -> str:
        return sha256(self.logits_NC.contiguous().view(torch.uint8).numpy().data).hexdigest()


def _open(logits: Cached, labels_N: Tensor) -> dict[str, _File | _Held]:
    opened: dict[str, _File | _Held] = {
        name: _Held(source) if isinstance(source, Tensor) else _File(Path(source)) for name, source in logits.items()
    }
    if not opened:
        raise ValueError("ensemble: no models")
    first = next(iter(opened.values())).shape
    for name, model in opened.items():
        if len(model.shape) != 2 or model.shape != first or model.shape[0] != len(labels_N) or not len(labels_N):
            raise ValueError(f"{name}: logits {model.shape}, expected {(len(labels_N), *first[1:])} as for the others")
    return opened


def _blocks(opened: Mapping[str, _File | _Held], size: int | None = None) -> Iterator[tuple[slice, Tensor]]:
    """(images, block_KBC in float32) from the first image to the last."""
    count, classes = next(iter(opened.values())).shape
    size = size or max(1, BLOCK // (len(opened) * classes))
    for start in range(0, count, size):
        stop = min(start + size, count)
        block_KBC = torch.empty(len(opened), stop - start, classes)
        for block_BC, model in zip(block_KBC, opened.values(), strict=True):
            block_BC.copy_(model.rows(start, stop))
        yield slice(start, stop), block_KBC


def _correct(name: str, model: _File | _Held, labels_N: Tensor) -> int:
    """Images that one model gets right."""
    correct = 0
    for part, block_KBC in _blocks({name: model}):
        if not bool(torch.isfinite(block_KBC).all()):
            raise ValueError(f"{name}: logits hold NaN or infinity")
        correct += int((block_KBC[0].argmax(dim=1) == labels_N[part]).sum())
    return correct


def _soup(
    method: str, opened: Mapping[str, Any], row: list[float], trace: list[dict[str, Any]], beta: float = 1
) -> Soup:
    names, shas = tuple(opened), tuple(model.sha256() for model in opened.values())
    return Soup(method, names, shas, {EVERYTHING: row}, space="logits", beta=beta, trace=tuple(trace))
