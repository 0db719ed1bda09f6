"""Ensembles computed from cached logits, without a forward pass.

A model's logits are one .npy file of N images by C classes (float16 or wider), read in blocks of
images. Memory: one block of all models (`logit_blocks.BLOCK` numbers) and, for a greedy ensemble,
the float32 sum of its logits, 4 N C bytes (0.8 GB for 200,000 images and 1,000 classes).
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from xxhash import xxh3_128

from modelsoups.config.soup_options import Strict
from modelsoups.disk import storage
from modelsoups.soup.coefficients import Soup
from modelsoups.soup.greedy_rule import GreedySearch, best_first
from modelsoups.soup.holdout import Holdout
from modelsoups.soup.library import Sources, hashes, open_all
from modelsoups.soup.logit_blocks import (
    CachedLogits,
    LogitTotal,
    Source,
    blocks,
    check_content,
    count_correct,
    digest_of,
    open_logits,
)
from modelsoups.stats.calibration import BINS, ece_of, minimizing_beta
from modelsoups.weights.state_dicts import EVERYTHING


@dataclass(frozen=True)
class EnsembleScores:
    """Scores on n images: correct images, cross-entropy in nats, calibration error (0 to 1)."""

    n: int
    correct: int
    loss: float
    calibration_error: float

    @property
    def accuracy(self) -> float:
        return self.correct / self.n


def cache_logits(sources: Sources, holdout: Holdout, folder: str | Path) -> dict[str, Path]:
    """Write each checkpoint's hold-out logits to a float16 .npy file, and return the files' paths.

    A file that exists is reused. Its name has two hashes: one of checkpoint and hold-out, and one
    of its content, which is compared whenever the file is read. Raises ValueError for logits that
    are not finite in float16, and for a file that has changed since it was written.

        logits = soup.cache_logits(["a.pt", "b.pt"], holdout, "logits/")
        soup.ensemble(logits, holdout.labels_N).accuracy
    """
    files = {}
    checkpoints, data = open_all(sources), holdout.digest()
    for checkpoint, digest in zip(checkpoints, hashes(checkpoints), strict=True):
        start = xxh3_128(f"{digest} {data}".encode()).hexdigest()
        if there := sorted(Path(folder).glob(f"{start}-*.npy")):
            check_content(there[0])
            files[checkpoint.name] = there[0]
            continue
        logits_NC = holdout.logits(checkpoint).to(torch.float16)
        if not bool(torch.isfinite(logits_NC).all()):
            raise ValueError(f"{checkpoint.name}: hold-out logits contain NaN or infinity, or do not fit into float16")
        path = files[checkpoint.name] = Path(folder) / f"{start}-{digest_of(logits_NC.numpy())}.npy"
        with storage.atomic(path) as tmp, open(tmp, "wb") as file:
            np.save(file, logits_NC.numpy())
    return files


def ensemble(
    logits: CachedLogits, labels_N: Tensor, weights: Sequence[float] | None = None, beta: float = 1.0
) -> EnsembleScores:
    """Return the scores of the ensemble beta * sum_k w_k logits_k, by default the mean.

    logits: by model name, an (N images, C classes) tensor or an .npy file. Raises ValueError for
    logits that cannot be read, are not finite or differ in shape, and if a weight is missing.

        soup.ensemble({"a": logits_a_NC, "b": "b.npy"}, labels_N, weights=[0.7, 0.3]).accuracy
    """
    opened = open_logits(logits, labels_N)
    weights_K = _weights(len(opened), weights)
    n, loss = len(labels_N), 0.0
    confidence_N, correct_N = torch.empty(n), torch.empty(n, dtype=torch.bool)
    for part, block_KBC in blocks(list(opened.values())):
        logits_BC = beta * torch.einsum("k,kbc->bc", weights_K, block_KBC)
        if not bool(torch.isfinite(logits_BC).all()):
            raise ValueError("ensemble: logits contain NaN or infinity")
        labels_B = labels_N[part]
        confidence_N[part], predicted_B = logits_BC.softmax(dim=1).max(dim=1)
        correct_N[part] = predicted_B == labels_B
        loss += float(F.cross_entropy(logits_BC, labels_B, reduction="sum"))
    error = ece_of(confidence_N.double(), correct_N, min(BINS, n))
    return EnsembleScores(n, int(correct_N.sum()), loss / n, error)


def greedy_ensemble(logits: CachedLogits, labels_N: Tensor, *, strict: Strict = False) -> Soup:
    """Choose an ensemble by Recipe 1, with the mean of logits, not of weights (table 3).

    Returns a Soup whose space is "logits". Raises ValueError as `ensemble` does.

        chosen = soup.greedy_ensemble(logits, labels_N)
        soup.ensemble({name: logits[name] for name in chosen.ingredients}, labels_N).accuracy
    """
    opened = open_logits(logits, labels_N)
    names, sources = list(opened), list(opened.values())
    correct = [count_correct(name, source, labels_N) for name, source in opened.items()]
    total = LogitTotal(sources, labels_N, torch.float32)
    search = GreedySearch(names, correct, total.judge, total.add, len(labels_N))
    search.run(best_first(correct), strict)
    members = {names[i]: sources[i] for i in search.picks}
    return _soup("greedy_ensemble", members, [1 / len(members)] * len(members), search.trace)


def learned_ensemble(
    logits: CachedLogits, labels_N: Tensor, *, epochs: int = 3, lr: float = 0.1, batch_size: int = 256
) -> Soup:
    """Learn a softmax over the models, and beta, with AdamW on the cross-entropy (like equation 2).

    Returns a Soup whose space is "logits". Batches are consecutive images: shuffle images that are
    sorted by class. Raises ValueError as `ensemble` does, and for a loss that is not finite.

        chosen = soup.learned_ensemble(logits, labels_N, epochs=10)
        soup.ensemble(logits, labels_N, chosen.coefficients["*"], chosen.beta).loss
    """
    opened = open_logits(logits, labels_N)
    if epochs < 1 or batch_size < 1 or not 0 < lr < math.inf:
        raise ValueError(f"learned_ensemble: epochs={epochs}, lr={lr}, batch_size={batch_size}; expected all above 0")
    raw_K, beta = torch.zeros(len(opened), requires_grad=True), torch.ones((), requires_grad=True)
    optimizer = torch.optim.AdamW([raw_K, beta], lr=lr, weight_decay=0.0)
    trace: list[dict[str, Any]] = []
    for epoch in range(epochs):
        for part, block_KBC in blocks(list(opened.values()), batch_size):
            logits_BC = beta * torch.einsum("k,kbc->bc", raw_K.softmax(dim=0), block_KBC)
            loss = F.cross_entropy(logits_BC, labels_N[part])
            if not math.isfinite(float(loss.detach())):
                raise ValueError(f"learned_ensemble: the loss is not finite at step {len(trace)}; lower lr={lr}")
            trace.append({"step": len(trace), "epoch": epoch, "loss": float(loss.detach())})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return _soup("learned_ensemble", opened, raw_K.detach().softmax(dim=0).tolist(), trace, beta.item())


def calibrated(logits: CachedLogits, labels_N: Tensor, weights: Sequence[float] | None = None) -> float:
    """Return the beta (1 / temperature) of least cross-entropy of the ensemble (Guo et al. 2017).

    beta is between 0.001 and 1000. Reads all logits about 20 times, once for each step of
    `stats.calibration.minimizing_beta`. Raises ValueError as `ensemble` does.

        beta = soup.calibrated(logits, labels_N)
        soup.ensemble(logits, labels_N, beta=beta).calibration_error
    """
    opened = open_logits(logits, labels_N)
    weights_K = _weights(len(opened), weights)

    def each_block() -> Any:
        for part, block_KBC in blocks(list(opened.values())):
            yield torch.einsum("k,kbc->bc", weights_K, block_KBC), labels_N[part]

    return minimizing_beta(each_block)


def _weights(count: int, weights: Sequence[float] | None) -> Tensor:
    weights_K = torch.tensor([1 / count] * count if weights is None else list(weights))
    if len(weights_K) != count:
        raise ValueError(f"ensemble: {len(weights_K)} weights for {count} models; expected one for each")
    return weights_K


def _sha256(source: Source) -> str:
    if isinstance(source, Tensor):
        return hashlib.sha256(source.contiguous().view(torch.uint8).numpy().data).hexdigest()
    return storage.file_sha256(source)


def _soup(
    method: str, members: Mapping[str, Source], row: list[float], trace: list[dict[str, Any]], beta: float = 1
) -> Soup:
    digests = tuple(map(_sha256, members.values()))
    return Soup(method, tuple(members), digests, {EVERYTHING: row}, space="logits", beta=beta, trace=tuple(trace))
