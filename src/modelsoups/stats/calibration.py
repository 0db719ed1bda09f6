"""Calibration error with bins of equal mass, and temperature scaling (Figure B.2)."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from torch import Tensor

BINS = 15  # as in Guo et al. (2017)
BETA = (1e-3, 1e3)  # range of beta; a model with 100% accuracy has no finite optimum
Predictions = tuple[Tensor, Tensor]  # confidence_N of a model, and correct_N


def ece(logits_NC: Tensor, labels_N: Tensor, bins: int = BINS) -> float:
    """Return the expected calibration error with bins of equal mass (Roelofs et al. 2020), 0 to 1.

    It is the mean over bins, weighted by their size, of |accuracy - mean confidence|. Images are
    sorted by confidence (largest softmax) and split evenly. ValueError if there are fewer images
    than bins.
    """
    return ece_of(*confidence(logits_NC, labels_N), bins)


def ece_of(confidence_N: Tensor, correct_N: Tensor, bins: int = BINS) -> float:
    """Return the ECE (see `ece`) from each image's confidence and whether its class is correct."""
    if not 1 <= bins <= len(confidence_N):
        expected = "at most one bin per image"
        raise ValueError(f"ECE: {bins} bins for {len(confidence_N)} images; expected {expected}")
    return _binned_error(confidence_N.numpy(), correct_N.double().numpy(), bins)


def ece_sweep(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Return ECE with the most bins whose accuracies rise with confidence (Roelofs et al. 2020)."""
    confidences, correct = confidence(logits_NC, labels_N)
    confidence_N, correct_N = _sorted(confidences.numpy(), correct.double().numpy())
    parts = np.array_split(correct_N, 1)
    for bins in range(2, len(confidence_N) + 1):
        finer = np.array_split(correct_N, bins)
        means = [part.mean() for part in finer]
        if means != sorted(means):
            break
        parts = finer
    return _error(confidence_N, parts)


def ece_difference(
    one: Sequence[Predictions], two: Sequence[Predictions], bins: int = BINS, draws: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the mean ECE of models `one` minus that of `two`, and the ends of its 95% interval.

    All models are evaluated on the same images, and each bootstrap sample is used for all of them.
    The interval is normal, with the bootstrap's standard deviation. Bootstrap percentiles would be
    biased, because resampling images raises the ECE, most of all for a well calibrated model.
    """
    sides: list[list[tuple[np.ndarray, np.ndarray]]] = []
    for models in (one, two):
        sides.append([(c.double().numpy(), r.double().numpy()) for c, r in models])
    n = len(sides[0][0][0])

    def difference(picks: np.ndarray) -> float:
        means = []
        for models in sides:
            errors = [_binned_error(c[picks], r[picks], bins) for c, r in models]
            means.append(float(np.mean(errors)))
        return means[0] - means[1]

    value = difference(np.arange(n))
    rng = np.random.default_rng(seed)
    drawn = [difference(rng.integers(0, n, n)) for _ in range(draws)]
    half = 1.959964 * float(np.std(drawn))
    return value, value - half, value + half


def _binned_error(confidence: np.ndarray, correct: np.ndarray, bins: int) -> float:
    confidence_N, correct_N = _sorted(confidence, correct)
    return _error(confidence_N, np.array_split(correct_N, bins))


def confidence(logits_NC: Tensor, labels_N: Tensor) -> Predictions:
    """Return each image's largest softmax probability, and whether its prediction is correct."""
    confidence_N, predicted_N = logits_NC.double().softmax(dim=1).max(dim=1)
    return confidence_N, predicted_N == labels_N


def _sorted(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both arrays sorted by confidence; correctness is averaged over equal confidences."""
    order = np.argsort(confidence, kind="stable")
    confidence_N, correct_N = confidence[order], correct[order]
    begins = np.flatnonzero(np.diff(confidence_N, prepend=-1.0))
    sizes = np.diff(begins, append=len(confidence_N))
    return confidence_N, np.repeat(np.add.reduceat(correct_N, begins) / sizes, sizes)


def _error(confidence_N: np.ndarray, parts: list[np.ndarray]) -> float:
    gaps, begin = 0.0, 0
    for part in parts:
        gaps += abs(float(part.sum() - confidence_N[begin : begin + len(part)].sum()))
        begin += len(part)
    return gaps / len(confidence_N)


def calibrating_beta(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Return the factor beta with the least mean cross-entropy of beta * logits (appendix K.4)."""
    return minimizing_beta(lambda: [(logits_NC, labels_N)])


def minimizing_beta(blocks: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> float:
    """Return the beta with the least mean cross-entropy of beta * logits over blocks().

    blocks() yields batches of (logits, labels).

    It is called once for each step. The result is limited to the range BETA.
    """

    def slope(beta: float) -> float:
        total, n = 0.0, 0
        for part_BC, labels_B in blocks():
            logits_BC = part_BC.double()
            expected_B = ((beta * logits_BC).softmax(dim=1) * logits_BC).sum(dim=1)
            label_logits_B = logits_BC.gather(1, labels_B[:, None])[:, 0]
            total += float((expected_B - label_logits_B).sum())
            n += len(labels_B)
        return total / n

    from scipy.optimize import brentq  # takes a quarter of a second to import

    low, high = BETA
    if slope(low) >= 0:
        return low
    if slope(high) <= 0:
        return high
    return float(brentq(slope, low, high, xtol=1e-10, rtol=1e-10))
