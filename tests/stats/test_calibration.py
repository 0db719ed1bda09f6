"""Calibration error and temperature, worked out by hand."""

import math

import numpy as np
import pytest
import torch

from modelsoups.stats.calibration import calibrating_beta, confidence, ece, ece_difference, ece_sweep
from modelsoups.stats.scores import cross_entropy


def predictor(confidences: list[float], right: list[bool]) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes, class 0 predicted with these probabilities; the label is 0 where it is right."""
    p = torch.tensor(confidences, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()], dim=1), torch.tensor([0 if r else 1 for r in right])


def test_a_perfectly_calibrated_predictor_has_no_error() -> None:
    """Of four images at 0.75 three are right, of two at 1 - 1e-12 both: no gap in either bin."""
    logits, labels = predictor([0.75] * 4 + [1 - 1e-12] * 4, [True, True, True, False] + [True] * 4)
    assert ece(logits, labels, bins=2) == pytest.approx(0, abs=1e-9)
    assert ece_sweep(logits, labels) == pytest.approx(0, abs=1e-9)


def test_a_constant_predictor_is_off_by_its_confidence_less_its_accuracy() -> None:
    """0.9 everywhere, right half of the time: 0.4, whatever the order of the images and the number of bins."""
    for right in ([True, False] * 6, [True] * 6 + [False] * 6):
        logits, labels = predictor([0.9] * 12, right)
        for bins in (1, 2, 3, 5, 12):
            assert ece(logits, labels, bins) == pytest.approx(0.4)
        assert ece_sweep(logits, labels) == pytest.approx(0.4)


def test_bins_hold_equal_numbers_in_order_of_confidence() -> None:
    """Sorted: 0.6 wrong, 0.6 right | 0.8 right, 0.9 wrong: |1 - 1.2| and |1 - 1.7|, over 4 images. The two of equal
    confidence are half right each."""
    logits, labels = predictor([0.9, 0.6, 0.8, 0.6], [False, False, True, True])
    assert ece(logits, labels, bins=2) == pytest.approx((0.2 + 0.7) / 4)
    assert ece(logits, labels, bins=1) == pytest.approx(0.9 / 4)
    assert ece(logits, labels, bins=4) == pytest.approx((0.1 + 0.1 + 0.2 + 0.9) / 4)


def test_the_sweep_stops_before_accuracy_falls() -> None:
    """In order of confidence wrong, right, wrong, right: halves have 0.5 and 0.5, thirds 0.5, 0, 1: two bins."""
    logits, labels = predictor([0.6, 0.7, 0.8, 0.9], [False, True, False, True])
    assert ece_sweep(logits, labels) == pytest.approx(ece(logits, labels, bins=2))


@pytest.mark.parametrize("bins", [0, 5])
def test_there_are_no_more_bins_than_images(bins: int) -> None:
    with pytest.raises(ValueError, match=f"{bins} bins for 4 images"):
        ece(*predictor([0.9] * 4, [True] * 4), bins)


def test_temperature_by_hand() -> None:
    """Logits (2, 0), right three times of four: beta * 2 must be log 3, so beta = log(3) / 2."""
    logits, labels = torch.tensor([[2.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1])
    beta = calibrating_beta(logits, labels)
    assert beta == pytest.approx(math.log(3) / 2, abs=1e-8)
    assert cross_entropy(beta * logits, labels) == pytest.approx(-(3 * math.log(0.75) + math.log(0.25)) / 4)


def test_temperature_ends_where_there_is_no_best() -> None:
    logits = torch.tensor([[2.0, 0.0]] * 4)
    assert calibrating_beta(logits, torch.zeros(4, dtype=torch.long)) == 1e3  # always right: the surer the better
    assert calibrating_beta(logits, torch.ones(4, dtype=torch.long)) == 1e-3  # always wrong


def test_calibrating_lowers_the_error_of_an_overconfident_model() -> None:
    rng = np.random.default_rng(0)
    true = torch.from_numpy(rng.normal(size=(4000, 5)))
    labels = torch.from_numpy(np.array([rng.choice(5, p=row) for row in true.softmax(dim=1).numpy()]))
    assert calibrating_beta(4 * true, labels) == pytest.approx(0.25, abs=0.02)
    assert ece(4 * true, labels) > 0.2
    assert ece(calibrating_beta(4 * true, labels) * 4 * true, labels) < 0.03


def test_a_difference_of_calibration_errors_has_an_interval_over_images() -> None:
    """0.9 and 0.6 everywhere, right half of the time: 0.4 less 0.1. As |accuracy - confidence| of the same images both

    move together, the difference stays 0.3 in nearly every draw; of a model and itself it is 0 in all.
    """
    bold, meek = (confidence(*predictor([p] * 200, [True, False] * 100)) for p in (0.9, 0.6))
    assert ece_difference([bold], [bold], bins=1) == (0, 0, 0)
    assert ece_difference([bold], [meek], bins=1) == pytest.approx((0.3, 0.3, 0.3), abs=0.05)
    assert ece_difference([bold, meek], [meek], bins=1)[0] == pytest.approx(0.15)


def test_the_interval_of_a_difference_covers_the_truth() -> None:
    """Confidence 0.8 against 0.7 where 0.6 are right: 0.1, in most of fifty samples of 300 images."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(50):
        right = (rng.random(300) < 0.6).tolist()
        one, two = (confidence(*predictor([p] * 300, right)) for p in (0.8, 0.7))
        other = confidence(*predictor([0.8] * 300, (rng.random(300) < 0.6).tolist()))
        assert ece_difference([one], [two], bins=1, draws=20)[0] == pytest.approx(0.1)
        _, low, high = ece_difference([one], [other], bins=1, draws=200)
        covered += low <= 0 <= high
    assert covered >= 42
