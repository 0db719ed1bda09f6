"""From logits to numbers: projection to a data set's classes, ensembles, accuracy.

Legend: N images, C classes, K models, D classes of the data set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:  # recipes and soups can be read without loading torch
    from torch import Tensor

PROJECTIONS = {"subset": "indices", "groups": "groups"}  # kind -> the key that goes with it


def project(logits_NC: Tensor, projection: Mapping[str, Any] | None) -> Tensor:
    """logits_ND over the data set's own classes, in the order of its labels (section 3.1's shifts).

    None keeps all classes; {"kind": "subset", "indices": [...]} keeps those columns (ImageNet-R and -A: 200 classes);
    {"kind": "groups", "groups": [[...], ...]} takes the largest logit of each group (ObjectNet's folders).
    Raises ValueError for another kind, other keys, an empty group, or an index that the model has no logit for.
    """
    if projection is None:
        return logits_NC
    kind = projection.get("kind")
    if kind not in PROJECTIONS or set(projection) != {"kind", PROJECTIONS[kind]}:
        forms = " or ".join(f'{{"kind": "{k}", "{v}": [...]}}' for k, v in PROJECTIONS.items())
        raise ValueError(f"projection kind={kind} with keys {', '.join(sorted(projection))}; expected {forms}")
    if kind == "subset":
        return logits_NC[:, _columns(projection["indices"], logits_NC.shape[1], "subset")]
    groups = [_columns(g, logits_NC.shape[1], f"group {i}") for i, g in enumerate(projection["groups"])]
    if not groups:
        raise ValueError("projection has no groups")
    return torch.stack([logits_NC[:, columns].amax(dim=1) for columns in groups], dim=1)


def _columns(indices: Sequence[int], classes: int, where: str) -> list[int]:
    """Column numbers, checked: a negative or repeated one would be accepted by indexing and give a wrong accuracy."""
    columns = [int(i) for i in indices]
    if not columns:
        raise ValueError(f"projection {where} is empty")
    if len(set(columns)) < len(columns):
        raise ValueError(f"projection {where} names a class twice")
    for i in columns:
        if not 0 <= i < classes:
            raise ValueError(f"projection {where}: class {i} is out of range; the model has classes 0 to {classes - 1}")
    return columns


class LogitSum:
    """Weighted sum of logits_NC in float64 in the order of adding, so that an ensemble holds one model's at a time."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.count = 0

    def add(self, logits_NC: Tensor, weight: float = 1.0) -> None:
        self.total, self.count = self.with_(logits_NC, weight), self.count + 1

    def with_(self, logits_NC: Tensor, weight: float = 1.0) -> Tensor:
        """The sum after adding, without adding."""
        term = torch.mul(logits_NC.double(), weight)
        if self.total is None:
            return term
        if term.shape != self.total.shape:
            raise ValueError(f"model {self.count}: logits {tuple(term.shape)}, expected {tuple(self.total.shape)}")
        return self.total + term

    def mean_with(self, logits_NC: Tensor) -> Tensor:
        return self.with_(logits_NC) / (self.count + 1)


def ensemble(logits: Iterable[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """Mean of the models' logits_NC, or sum_i w_i logits_i (section 3.1: logits, not probabilities); float64.

    Raises ValueError when there is no model, when shapes differ, or when weights are not one per model.
    """
    total = LogitSum()
    for position, logits_NC in enumerate(logits):
        if weights is not None and position >= len(weights):
            raise ValueError(f"ensemble: {len(weights)} weights for more models")
        total.add(logits_NC, 1.0 if weights is None else weights[position])
    if total.total is None:
        raise ValueError("ensemble: no models")
    if weights is not None and len(weights) != total.count:
        raise ValueError(f"ensemble: {len(weights)} weights for {total.count} models")
    return total.total if weights is not None else total.total / total.count


def cross_entropy(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Mean cross-entropy in nats."""
    return float(F.cross_entropy(logits_NC.double(), labels_N))


def correct(logits_NC: Tensor, labels_N: Tensor) -> int:
    """Number of images that are right at top 1; of equal logits the first class counts."""
    return int((logits_NC.argmax(dim=1) == labels_N).sum())


def accuracy(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Share of images that are right at top 1, 0 to 1."""
    if not len(labels_N):
        raise ValueError("accuracy: no images")
    return correct(logits_NC, labels_N) / len(labels_N)


def shift_mean(accuracies: Mapping[str, float], names: Sequence[str]) -> float:
    """Unweighted mean over the named data sets ("average over the five shifts").

    Raises ValueError naming the missing ones: a mean over fewer sets is another quantity.
    """
    missing = [name for name in names if name not in accuracies]
    if missing or not names:
        have = ", ".join(accuracies) or "none"
        raise ValueError(f"mean of shifts: no accuracy for {', '.join(missing) or 'any data set'}; there are: {have}")
    return sum(accuracies[name] for name in names) / len(names)


@dataclass(frozen=True)
class Logits:
    """A model's logits_NC on one data set, already projected to the data set's own classes, and labels_N."""

    dataset: str
    logits_NC: Tensor
    labels_N: Tensor

    def __post_init__(self) -> None:
        if self.logits_NC.ndim != 2 or self.labels_N.shape != self.logits_NC.shape[:1]:
            raise ValueError(
                f"{self.dataset}: logits {tuple(self.logits_NC.shape)} and labels {tuple(self.labels_N.shape)} differ"
            )

    @property
    def correct_N(self) -> Tensor:
        """Whether each image is right at top 1, as bool."""
        return self.logits_NC.argmax(dim=1) == self.labels_N

    @property
    def accuracy(self) -> float:
        return float(self.correct_N.double().mean())
