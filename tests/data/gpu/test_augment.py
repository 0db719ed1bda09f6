"""Augmentation of whole batches: the same draws as timm's and torchvision's own transforms, and the same pixels."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from photos import MEAN, SIDE, photos
from PIL import Image
from timm.data import auto_augment

from modelsoups.data.gpu import augment, operations
from modelsoups.data.transforms import posterize, seed_sample, to_uint8, train_crop

POLICIES = ["minimal", "medium", "strong", "rand-m7-n1", "rand-m2-n1", "rand-m9-n3", "rand-m0-n2", "rand-m5-n0"]


def state():
    return random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()


def both_ways(policy, images):
    """(what the transform makes, what the plan makes, what was drawn), from the same random numbers."""
    transform = train_crop(policy, SIDE, MEAN)
    expected, drawn = [], []
    for i, image in enumerate(images):
        seed_sample("batched", i)
        expected.append(to_uint8(transform(image)))
        after = state()
        seed_sample("batched", i)
        drawn.append(augment.draw(transform, to_uint8(image), SIDE))
        assert state() == after  # not a number more or less
    made = augment.plan_batch([to_uint8(i) for i in images], drawn, SIDE, MEAN).augmented()
    return torch.stack(expected).int(), made.int(), drawn


@pytest.mark.parametrize("policy", POLICIES)
def test_a_batch_is_what_the_transforms_make_of_each_image(policy):
    expected, made, drawn = both_ways(policy, list(photos()))
    apart = (expected - made).abs().float()
    calm = torch.tensor([not d.operations for d in drawn])
    assert not calm.any() or int(apart[calm].max()) <= 2  # a crop differs by rounding, twice
    assert float(apart.mean()) < 0.5
    assert float((apart > 2).float().mean()) < 0.02  # what equalize, solarize and contrast make of one level


def squares():
    return [image.resize((SIDE, SIDE)) for image in photos()]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("AutoContrast", []),
        ("Equalize", []),
        ("Invert", []),
        ("Posterize", [0, 2, 8]),
        ("Solarize", [0, 100, 256]),
        ("SolarizeAdd", [0, 77, 128]),
        ("Color", [0.1, 0.7, 1.9]),
        ("Contrast", [0.1, 1.9]),
        ("Brightness", [0.1, 1.9]),
        ("Sharpness", [0.1, 1.0, 1.9]),
    ],
)
def test_tones_are_pils(name, arguments):
    images = [*squares(), Image.new("RGB", (SIDE, SIDE), (7, 200, 255))]  # one of a single colour
    for argument in arguments or [None]:
        given = [] if argument is None else [argument]
        function = posterize if name == "Posterize" else auto_augment.NAME_TO_OP[name]
        expected = torch.stack([to_uint8(function(image, *given)) for image in images]).int()
        batch, numbers = torch.stack([to_uint8(i) for i in images]), [float(argument or 0)] * len(images)
        made = operations.TONES[name](batch, torch.tensor(numbers, dtype=torch.float64)).int()
        apart = (expected - made).abs()
        assert int(apart.max()) <= (1 if name == "AutoContrast" else 0)
        assert float(apart.float().mean()) < 1e-3


@pytest.mark.parametrize("name", operations.AFFINE)
@pytest.mark.parametrize("mode", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_affine_maps_are_pils(name, mode):
    images, fill = squares(), (1, 2, 3)
    arguments = (-30.0, 12.5, 0.0, 90.0) if name == "Rotate" else (-0.3, 0.13, 0.0)
    images = [images[i % len(images)] for i in range(8 * len(arguments))]
    given = [arguments[i % len(arguments)] for i in range(len(images))]  # each image its own
    function = auto_augment.NAME_TO_OP[name]
    expected = [function(i, a, fillcolor=fill, resample=mode) for i, a in zip(images, given, strict=True)]
    matrices = torch.tensor([operations.affine_matrix(name, a, SIDE) for a in given], dtype=torch.float64)
    batch, bicubic = torch.stack([to_uint8(i) for i in images]), mode == Image.Resampling.BICUBIC
    made = operations.affine(batch, matrices, torch.tensor(fill, dtype=torch.uint8), bicubic)
    apart = (torch.stack([to_uint8(i) for i in expected]).int() - made.int()).abs()
    assert int(apart.max()) <= 1
    assert float(apart.float().mean()) < 0.05


def test_crops_flips_and_operations_are_drawn_as_often_as_the_recipe_says():
    """4,000 images of 500 x 375: area and aspect of the crops, half mirrored, each operation with chance 1/2."""
    image = Image.new("RGB", (500, 375))
    transform = train_crop("rand-m9-n2", SIDE, MEAN)
    drawn = []
    for i in range(4000):
        seed_sample("often", i)
        drawn.append(augment.draw(transform, image, SIDE))
    shares = np.array([d.box[2] * d.box[3] / (500 * 375) for d in drawn])
    aspects = np.array([d.box[3] / d.box[2] for d in drawn])
    assert (shares.min() > 0.079, shares.max() <= 1.0, aspects.min() > 0.74, aspects.max() < 1.35) == (True,) * 4
    assert float(np.mean([d.flip for d in drawn])) == pytest.approx(0.5, abs=0.03)
    assert float(np.mean([d.bicubic for d in drawn])) == pytest.approx(0.5, abs=0.03)
    counts = Counter(o.name for d in drawn for o in d.operations)
    assert sum(counts.values()) / len(drawn) == pytest.approx(1.0, abs=0.04)  # two, each with chance 1/2
    tones = np.array([counts[name] for name in operations.TONES]) / sum(counts.values())
    assert np.abs(tones - 1 / 15).max() < 0.015
    assert counts["affine"] / sum(counts.values()) == pytest.approx(5 / 15, abs=0.03)


def test_an_image_much_larger_than_the_others_is_shrunk_first():
    image = Image.new("RGB", (2000, 500), (200, 100, 50))
    smaller = augment.canvas_pixels(image)
    assert (smaller.shape, smaller.dtype) == ((3, 128, 512), torch.uint8)
    assert smaller.flatten(1).unique(dim=1).tolist() == [[200], [100], [50]]
    same = torch.zeros(3, 512, 300, dtype=torch.uint8)
    assert augment.canvas_pixels(same) is same  # decoded to a tensor already
