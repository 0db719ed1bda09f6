"""Accuracy and cross-entropy of logits (N images, C classes), also of ensembles; mean of shifts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def ensemble(logits: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """Return the mean of the models' logits or, with weights, their weighted sum, in float64.

    Raises ValueError if there are no models, shapes differ, or there is not one weight per model.
    """
    if not logits:
        raise ValueError("ensemble: there are no models")
    if weights is not None and len(weights) != len(logits):
        raise ValueError(f"ensemble: {len(weights)} weights for {len(logits)} models; expected one weight per model")
    total_NC = torch.zeros(logits[0].shape, dtype=torch.float64, device=logits[0].device)
    for number, logits_NC in enumerate(logits):
        if logits_NC.shape != total_NC.shape:
            raise ValueError(f"model {number}: logits have shape {tuple(logits_NC.shape)}, not {tuple(total_NC.shape)}")
        total_NC += torch.mul(logits_NC.double(), 1.0 if weights is None else weights[number])
    return total_NC if weights is not None else total_NC / len(logits)


def cross_entropy(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Return the mean cross-entropy over images, in nats."""
    return float(F.cross_entropy(logits_NC.double(), labels_N))


def correct(logits_NC: Tensor, labels_N: Tensor) -> int:
    """Return the number of images whose top class is the label; ties go to the first class."""
    return int((logits_NC.argmax(dim=1) == labels_N).sum())


def accuracy(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Return the top-1 accuracy, from 0 to 1; ValueError if there are no images."""
    if not len(labels_N):
        raise ValueError("accuracy: there are no images")
    return correct(logits_NC, labels_N) / len(labels_N)


def shift_mean(accuracies: Mapping[str, float], names: Sequence[str]) -> float:
    """Return the unweighted mean accuracy over the data sets `names`; ValueError if one is missing.

    A mean over fewer sets could not be compared with the paper's average over its five shifts.
    """
    missing = [name for name in names if name not in accuracies]
    if missing or not names:
        have = ", ".join(accuracies) or "none"
        raise ValueError(f"mean of shifts: no accuracy for {', '.join(missing) or 'any data set'}, only for: {have}")
    return sum(accuracies[name] for name in names) / len(names)


@dataclass(frozen=True)
class Logits:
    """One model's logits on a data set, over the classes of the data set, and the labels."""

    dataset: str
    logits_NC: Tensor
    labels_N: Tensor

    def __post_init__(self) -> None:
        if self.logits_NC.ndim != 2 or self.labels_N.shape != self.logits_NC.shape[:1]:
            shapes = f"logits of shape {tuple(self.logits_NC.shape)} and labels of {tuple(self.labels_N.shape)}"
            expected = "(images, classes) and (images,)"
            raise ValueError(f"{self.dataset}: {shapes} do not match; expected {expected}")

    @property
    def correct_N(self) -> Tensor:
        """For each image, whether its top class is its label, as a bool tensor (N,)."""
        return self.logits_NC.argmax(dim=1) == self.labels_N

    @property
    def accuracy(self) -> float:
        return float(self.correct_N.double().mean())
