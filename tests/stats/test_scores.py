"""Projection, ensembles, accuracy, mean of shifts: by hand."""

import math

import pytest
import torch

from modelsoups.stats import scores
from modelsoups.stats.scores import accuracy, cross_entropy, ensemble, shift_mean

LOGITS = torch.tensor([[1.0, 9.0, 3.0, 4.0], [8.0, 7.0, 6.0, 5.0]])


def test_ensemble_by_hand() -> None:
    """Means (1 + 3) / 2 = 2 and (2 + 8) / 2 = 5; weighted 1/4 and 3/4: 2.5 and 6.5."""
    a, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 8.0]])
    assert ensemble([a, b]).tolist() == [[2.0, 5.0]]
    assert ensemble([a, b], [0.25, 0.75]).tolist() == [[2.5, 6.5]]
    assert ensemble([a]).tolist() == a.tolist()


def test_ensembles_accumulate_in_float64() -> None:
    """In float32, 2**24 + 1 is 2**24, and class 0 would lose the image it wins by one."""
    models = [torch.tensor([[2.0**24, 2.0**24]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.5]])]
    assert ensemble(models).dtype == torch.float64
    assert (ensemble(models) * 3).tolist() == [[2.0**24 + 1, 2.0**24 + 0.5]]
    half = torch.tensor([[60000.0, 0.0]]).half()
    assert ensemble([half, half]).tolist() == [[60000.0, 0.0]], "120000 is beyond float16"
    assert models[0].tolist() == [[2.0**24, 2.0**24]], "the models' own logits stay as they are"
    double = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    ensemble([double, double])
    assert double.tolist() == [[1.0, 2.0]]


def test_ensemble_refuses() -> None:
    with pytest.raises(ValueError, match="no models"):
        ensemble([])
    with pytest.raises(ValueError, match=r"model 1: logits have shape \(1, 4\), not \(2, 4\)"):
        ensemble([LOGITS, LOGITS[:1]])
    for weights in ([1.0], [0.2, 0.3, 0.5]):
        with pytest.raises(ValueError, match="weights for"):
            ensemble([LOGITS, LOGITS], weights)


def test_accuracy_and_cross_entropy_by_hand() -> None:
    """Predictions 1 and 0: one of two right. Equal logits over two classes: log 2."""
    assert accuracy(LOGITS, torch.tensor([1, 3])) == 0.5
    assert scores.correct(LOGITS, torch.tensor([1, 0])) == 2
    assert cross_entropy(torch.zeros(3, 2), torch.tensor([0, 1, 1])) == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match="no images"):
        accuracy(LOGITS[:0], torch.zeros(0, dtype=torch.long))


def test_the_mean_of_shifts_is_of_all_or_none() -> None:
    accuracies = {"v2": 0.5, "r": 0.4, "test": 0.9}
    assert shift_mean(accuracies, ["v2", "r"]) == pytest.approx(0.45)
    with pytest.raises(ValueError, match="no accuracy for sketch, a, only for: v2, r, test"):
        shift_mean(accuracies, ["v2", "sketch", "r", "a"])
    with pytest.raises(ValueError, match="no accuracy for any data set"):
        shift_mean(accuracies, [])
