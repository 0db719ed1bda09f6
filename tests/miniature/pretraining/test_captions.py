"""Pre-training on captions: its loss, its card, and how well the shipped IconCLIP classifies without training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modelsoups.disk import storage
from modelsoups.miniature import sets
from modelsoups.miniature.pretraining import captions
from modelsoups.models import iconclip


def test_shipped_weights_see_better_than_chance():
    accuracies = captions.zero_shot(iconclip.FOLDER, chunks=1)
    assert accuracies["test"] > 50
    assert 35 < accuracies["mean of shifts"] < accuracies["test"]
    assert accuracies["a"] < accuracies["r"] - 5


def test_card_says_how_the_weights_were_made():
    card = storage.read_json(iconclip.FOLDER / iconclip.CARD)
    assert card["images"] == card["options"]["steps"] * card["options"]["batch_size"]
    assert set(card["zero-shot accuracy"]) == {n for n, s in sets.SETS.items() if s.role in ("test", "shift")} | {
        "mean of shifts"
    }


def test_contrastive_loss_counts_the_same_name_as_a_match():
    eye_BD = torch.eye(4)
    distinct = captions.contrastive_loss(eye_BD, eye_BD, torch.tensor(50.0), torch.arange(4))
    twins_BD = eye_BD[[0, 0, 1, 2]]
    twins = captions.contrastive_loss(twins_BD, twins_BD, torch.tensor(50.0), torch.tensor([0, 0, 1, 2]))
    assert float(distinct) == pytest.approx(0, abs=1e-6)
    assert float(twins) == pytest.approx(0.5 * np.log(2), abs=1e-6)  # two of four rows choose between two matches
