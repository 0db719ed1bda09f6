"""Augmentation is timm's and torchvision's own, for any Pillow, and a function of the sample alone."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment
from timm.data.transforms_factory import transforms_imagenet_train
from torchvision import transforms as tv

from modelsoups.data import transforms

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
RNG = np.random.default_rng(0)


def image(width=50, height=40):
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("policy", [None, *(f"rand-m{m}-n{n}" for m in range(21) for n in range(3))])
def test_medium_and_randaugment_equal_timms_transform_for_the_same_random_state(policy):
    """Every setting of the search, and so of the released models."""
    theirs = transforms_imagenet_train(32, mean=MEAN, std=STD, auto_augment=policy)
    ours = transforms.train_crop(policy or "medium", 32, MEAN, 0.08)
    compared = 0
    for number in range(12):
        picture = image()
        transforms.seed_sample(number)
        try:
            expected = theirs(picture)
        except ValueError:  # newer Pillows refuse to posterize to no bits, which timm asks for when M <= 2
            continue
        compared += 1
        transforms.seed_sample(number)
        pixels = transforms.to_uint8(ours(picture))
        got = (pixels.float() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)

    assert compared >= 8


def test_the_strengths_of_the_released_models_are_timms():
    """rand-m{M}-n{N}: N operations of magnitude M, clipped at 10 as timm clips it."""
    file = Path(__file__).parents[2] / "sweeps" / "released_72.jsonl"
    policies = {json.loads(line)["aug"] for line in file.read_text().splitlines()}
    assert len(policies) > 20
    for policy in policies - {"minimal"}:
        m, n = map(int, re.fullmatch(r"rand-m(\d+)-n(\d)", policy).groups())
        steps = transforms.train_crop(policy, 32, MEAN, 0.08).transforms
        found = [s for s in steps if isinstance(s, auto_augment.RandAugment)]
        assert [s.num_layers for s in found] == ([n] if n else [])
        assert all((op.magnitude, op.prob) == (m, 0.5) for s in found for op in s.ops)
        assert all(op.magnitude_max is None for s in found for op in s.ops)


def test_minimal_is_open_clips_crop():
    theirs = tv.RandomResizedCrop(32, scale=(0.9, 1.0), interpolation=tv.InterpolationMode.BICUBIC)
    for number in range(10):
        picture = image()
        transforms.seed_sample(number)
        expected = theirs(picture)
        transforms.seed_sample(number)
        assert (np.asarray(transforms.train_crop("minimal", 32, MEAN, 0.08)(picture)) == np.asarray(expected)).all()


@pytest.mark.parametrize("m", range(0, 21, 2))
@pytest.mark.parametrize("n", [0, 1, 2])
def test_every_setting_of_the_search_runs_on_every_image(m, n):
    crop = transforms.train_crop(f"rand-m{m}-n{n}", 32, MEAN, 0.08)
    for number, size in enumerate([(1, 1), (3, 50), (50, 3), (32, 32), (33, 47)] * 4):
        transforms.seed_sample(number)
        assert crop(image(*size)).size == (32, 32)


def test_timm_clips_magnitudes_above_ten():
    picture = image()
    outs = []
    for policy in ("rand-m10-n2", "rand-m15-n2", "strong"):
        crop = transforms.train_crop(policy, 32, MEAN, 0.08)
        transforms.seed_sample(3)
        outs.append(np.asarray(crop(picture)))
    assert (outs[0] == outs[1]).all()
    assert (outs[1] == outs[2]).all()


def test_mmax_lets_magnitudes_exceed_ten():
    """Appendix C's RandAugment of magnitudes 10, 15, 20 and 25, and what an operation gets of them."""
    strengths = set()
    for m in (10, 15, 20, 25):
        (step,) = [
            step
            for step in transforms.steps_of(transforms.train_crop(f"rand-m{m}-n2-mmax30", 32, MEAN))
            if isinstance(step, auto_augment.RandAugment)
        ]
        assert step.num_layers == 2
        strengths |= {(op.magnitude, op.magnitude_max) for op in step.ops}
        transforms.seed_sample("mmax", m)
        assert transforms.train_crop(f"rand-m{m}-n2-mmax30", 32, MEAN)(image()).size == (32, 32)
    assert strengths == {(m, 30) for m in (10, 15, 20, 25)}
    pictures = []
    for policy in ("rand-m10-n9-mmax30", "rand-m25-n9-mmax30"):
        transforms.seed_sample("mmax")
        pictures.append(np.asarray(transforms.train_crop(policy, 32, MEAN)(image())))
    assert (pictures[0] != pictures[1]).any()


def test_posterize_to_no_bits_is_black_as_in_older_pillow():
    assert not np.asarray(transforms.posterize(image(), 0)).any()
    picture = image()
    assert transforms.posterize(picture, 8) is picture
    assert (np.asarray(transforms.posterize(picture, 4)) == (np.asarray(picture) & 0xF0)).all()


def test_a_sample_depends_on_its_key_and_not_on_what_was_drawn_before():
    crop = transforms.train_crop("rand-m9-n2", 32, MEAN, 0.08)
    picture = image()
    transforms.seed_sample(5, 1, 17)
    first = np.asarray(crop(picture))
    torch.rand(7), np.random.rand(3)
    transforms.seed_sample(5, 1, 17)
    assert (np.asarray(crop(picture)) == first).all()
    transforms.seed_sample(5, 2, 17)
    assert (np.asarray(crop(picture)) != first).any()


def test_evaluation_resizes_the_shorter_side_and_leaves_an_image_of_the_right_size_alone():
    picture = image(32, 32)
    assert (np.asarray(transforms.eval_crop(transforms.View(32))(picture)) == np.asarray(picture)).all()
    wide = image(100, 50)
    expected = wide.resize((64, 32), Image.Resampling.BICUBIC).crop((16, 0, 48, 32))
    assert (np.asarray(transforms.eval_crop(transforms.View(32))(wide)) == np.asarray(expected)).all()
