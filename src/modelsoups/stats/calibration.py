"""Calibration (Figure B.2): expected calibration error with equal-mass bins, and temperature scaling.

Legend: N images, C classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from scipy.optimize import brentq
from torch import Tensor

BINS = 15  # as in Guo et al. (2017)
Sides = tuple[Tensor, Tensor]  # confidence_N, correct_N
BETA = (1e-3, 1e3)  # inverse temperatures looked at; a model that is always right wants an infinite one


def ece(logits_NC: Tensor, labels_N: Tensor, bins: int = BINS) -> float:
    """Expected calibration error with bins of equal mass (Roelofs et al. 2020), 0 to 1.

    The mean over bins, weighted by their images, of |accuracy - mean confidence|, where confidence is the largest
    softmax probability and a bin holds the next N / bins images in order of confidence (sizes differ by one at most).
    Images of equal confidence count as equally right.
    Raises ValueError when there are fewer images than bins.
    """
    return ece_of(*confidence(logits_NC, labels_N), bins)


def ece_of(confidence_N: Tensor, correct_N: Tensor, bins: int = BINS) -> float:
    """`ece` from the confidence of each image and whether it was right, in any order."""
    if not 1 <= bins <= len(confidence_N):
        raise ValueError(f"{bins} bins for {len(confidence_N)} images; expected from 1 to as many as there are images")
    return _ece_at(confidence_N.numpy(), correct_N.double().numpy(), bins)


def ece_sweep(logits_NC: Tensor, labels_N: Tensor) -> float:
    """ECE-SWEEP of Roelofs et al. (2020): as many equal-mass bins as keep accuracy rising from bin to bin."""
    sides = confidence(logits_NC, labels_N)
    confidence_N, correct_N = _sorted(sides[0].numpy(), sides[1].double().numpy())
    parts = _split(correct_N, 1)
    for bins in range(2, len(confidence_N) + 1):
        finer = _split(correct_N, bins)
        means = [part.mean() for part in finer]
        if any(b < a for a, b in itertools.pairwise(means)):
            break
        parts = finer
    return _error(confidence_N, parts)


def ece_difference(
    one: Sequence[Sides], two: Sequence[Sides], bins: int = BINS, draws: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean `ece` of some models less that of others, with a 95% interval: normal, by the bootstrap over images.

    Each side is (confidence_N, correct_N) on the same images, drawn together. Its percentiles would not do: drawing
    images raises an ECE, that of a well calibrated model most.
    """
    sides = [[(c.double().numpy(), r.double().numpy()) for c, r in models] for models in (one, two)]
    n = len(sides[0][0][0])

    def difference(picks: np.ndarray) -> float:
        a, b = (float(np.mean([_ece_at(c[picks], r[picks], bins) for c, r in models])) for models in sides)
        return a - b

    value = difference(np.arange(n))
    rng = np.random.default_rng(seed)
    drawn = [difference(rng.integers(0, n, n)) for _ in range(draws)]
    half = 1.959964 * float(np.std(drawn))
    return value, value - half, value + half


def _ece_at(confidence: np.ndarray, correct: np.ndarray, bins: int) -> float:
    confidence_N, correct_N = _sorted(confidence, correct)
    return _error(confidence_N, _split(correct_N, bins))


def confidence(logits_NC: Tensor, labels_N: Tensor) -> Sides:
    """confidence_N, the largest softmax probability of each image, and correct_N, whether it is the label's."""
    confidence_N, predicted_N = logits_NC.double().softmax(dim=1).max(dim=1)
    return confidence_N, predicted_N == labels_N


def _sorted(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In order of confidence; images of one confidence are equally right: their order is no matter."""
    order = np.argsort(confidence, kind="stable")
    confidence_N, correct_N = confidence[order], correct[order]
    begins = np.flatnonzero(np.diff(confidence_N, prepend=-1.0))
    sizes = np.diff(begins, append=len(confidence_N))
    return confidence_N, np.repeat(np.add.reduceat(correct_N, begins) / sizes, sizes)


def _split(values_N: np.ndarray, bins: int) -> list[np.ndarray]:
    return np.array_split(values_N, bins)


def _error(confidence_N: np.ndarray, parts: list[np.ndarray]) -> float:
    gaps, begin = 0.0, 0
    for part in parts:
        gaps += abs(float(part.sum() - confidence_N[begin : begin + len(part)].sum()))
        begin += len(part)
    return gaps / len(confidence_N)


def calibrating_beta(logits_NC: Tensor, labels_N: Tensor) -> float:
    """The inverse temperature that minimizes the mean cross-entropy of beta * logits (Guo et al. 2017; K.4).

    The loss is convex in beta, so its derivative has one root; where it has none, the end of BETA that is nearer.
    """
    logits_NC = logits_NC.double()
    right_N = logits_NC.gather(1, labels_N[:, None])[:, 0]

    def slope(beta: float) -> float:
        expected_N = ((beta * logits_NC).softmax(dim=1) * logits_NC).sum(dim=1)
        return float((expected_N - right_N).mean())

    low, high = BETA
    if slope(low) >= 0:
        return low
    if slope(high) <= 0:
        return high
    return float(brentq(slope, low, high, xtol=1e-10, rtol=1e-10))


def calibrated_loss(logits_NC: Tensor, labels_N: Tensor, beta: float = 1.0) -> float:
    """Mean cross-entropy of beta * logits in nats."""
    return float(F.cross_entropy(beta * logits_NC.double(), labels_N))
