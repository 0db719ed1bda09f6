"""The shipped IconViT, pre-trained on labels."""

from __future__ import annotations

import torch

from modelsoups.config.compose import load
from modelsoups.disk import storage
from modelsoups.miniature.images import chunk_batch
from modelsoups.miniature.pretraining import labels
from modelsoups.miniature.pretraining.captions import CARD_SEED
from modelsoups.miniature.pretraining.labels import LabelPretraining
from modelsoups.miniature.pretraining.training import CARD
from modelsoups.miniature.sets import CLASSES as NAMES
from modelsoups.models.classifier import build, normalise

CLASSES = len(NAMES)


def test_iconvit_tells_icons_apart_that_it_was_never_told_the_names_of():
    """Its features of test images, each against the mean of the other images of every class; chance is 1 of 80."""
    assert (labels.FOLDER / LabelPretraining.weights).stat().st_size <= 2e6
    model = build(load(["model=iconvit"]).model, CLASSES).eval()
    batches = [chunk_batch("test", CARD_SEED, chunk) for chunk in range(4)]
    pixels_BCHW = torch.cat([pixels for pixels, _ in batches])
    with torch.inference_mode():
        features_BD = torch.nn.functional.normalize(model.features(normalise(model, pixels_BCHW)), dim=1)
    labels_B = torch.tensor([label for _, numbers in batches for label in numbers])
    one_hot_BC = torch.nn.functional.one_hot(labels_B, CLASSES).float()
    others_BCD = (one_hot_BC.T @ features_BD)[None] - one_hot_BC[:, :, None] * features_BD[:, None]
    counts_BC = (one_hot_BC.sum(dim=0) - one_hot_BC).clamp(min=1)
    logits_BC = torch.einsum("bd,bcd->bc", features_BD, others_BCD / counts_BC[:, :, None])
    assert (logits_BC.argmax(dim=1) == labels_B).float().mean() > 0.3


def test_iconvit_card_says_how_the_weights_were_made():
    card = storage.read_json(labels.FOLDER / CARD)
    assert card["made with"].startswith("modelsoups pretrain pretrain.labels=true")
    assert card["images"] == card["options"]["steps"] * card["options"]["batch_size"]
