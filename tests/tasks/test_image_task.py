"""The loss and the inputs of image classification, by hand, on a network of one linear layer."""

import contextlib
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modelsoups.models.classifier import Classifier, normalise
from modelsoups.models.pretrained import Encoder
from modelsoups.recipes.recipe import Recipe
from modelsoups.tasks import image_targets
from modelsoups.tasks.images import ImageClassification
from modelsoups.tasks.task import Step

RECIPE = Recipe(
    lr=1e-3, weight_decay=0.0, epochs=1, batch_size=4, warmup_steps=0, clip=1.0, label_smoothing=0.0, mixup=0.0,
    seed=0, aug="minimal",
)  # fmt: skip
LABELS_B = torch.tensor([0, 2, 1, 2])


class Stored:
    """Crops of one data set that are already in memory."""

    def __init__(self, pixels_NCHW):
        self.pixels_NCHW = pixels_NCHW

    def pixels(self, dataset, size):
        return self.pixels_NCHW


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Classifier(Encoder(nn.Flatten(), 12, (0.4, 0.5, 0.6), (0.2, 0.25, 0.5), 2), 3, 2, False)


@pytest.fixture
def pixels_BCHW():
    return torch.randint(0, 256, (4, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def by_hand(model, images_BCHW, targets_BC):
    return -(targets_BC * F.log_softmax(model(images_BCHW), dim=1)).sum(dim=1).mean()


def loss(model, pixels_BCHW, recipe, number=3):
    return ImageClassification(Stored(pixels_BCHW), 2).loss(
        model, model, pixels_BCHW, LABELS_B, Step(recipe, number, 3, contextlib.nullcontext)
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_cross_entropy_with_smoothed_targets_of_normalised_pixels(model, pixels_BCHW, smoothing):
    targets_BC = F.one_hot(LABELS_B, 3) * (1 - smoothing) + smoothing / 3
    expected = by_hand(model, normalise(model, pixels_BCHW), targets_BC)
    torch.testing.assert_close(loss(model, pixels_BCHW, replace(RECIPE, label_smoothing=smoothing)), expected)


@pytest.mark.parametrize("number", range(4))
def test_mixup_mixes_images_and_targets_with_one_lambda_per_step(model, pixels_BCHW, number):
    lam = image_targets.mixup_lambda(0.5, RECIPE.seed, number)
    images_BCHW, targets_BC = normalise(model, pixels_BCHW), F.one_hot(LABELS_B, 3).float()
    mixed = [lam * x + (1 - lam) * x.flip(0) for x in (images_BCHW, targets_BC)]
    torch.testing.assert_close(loss(model, pixels_BCHW, replace(RECIPE, mixup=0.5), number), by_hand(model, *mixed))


def test_with_mixup_and_cutmix_each_step_takes_one_of_them():
    recipe, images_BCHW = replace(RECIPE, mixup=0.5, cutmix=0.5), torch.randn(4, 3, 8, 8)
    targets_BC, taken = F.one_hot(LABELS_B, 3).float(), {"mixup": 0, "cutmix": 0}
    for step in range(200):
        mixed = image_targets.mix_batch(images_BCHW, targets_BC, recipe, step)
        for name in taken:
            alone = replace(RECIPE, **{name: 0.5})
            of_one = image_targets.mix_batch(images_BCHW, targets_BC, alone, step)
            taken[name] += all(map(torch.equal, mixed, of_one))
    assert sum(taken.values()) >= 200  # a box without pixels is a mixture of nothing for both
    assert 70 < taken["mixup"] < 130


def test_inputs_are_the_normalised_images_with_these_indices(model, pixels_BCHW):
    index_B = torch.tensor([2, 0])
    got_BCHW = ImageClassification(Stored(pixels_BCHW), 2).inputs(None, model, index_B)
    torch.testing.assert_close(got_BCHW, normalise(model, pixels_BCHW[index_B]))
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (model.mean, model.std))
    torch.testing.assert_close(got_BCHW[1], (pixels_BCHW[0] / 255 - mean) / std)
