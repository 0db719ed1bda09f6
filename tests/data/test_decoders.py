"""Faster decoding gives PIL's pixels, or nearly; it draws the same random numbers and says what PIL says."""

import numpy as np
import pytest
import torch
from photos import MEAN, encoded, picture
from torchvision.transforms import functional as tv

from modelsoups.config.compose import load
from modelsoups.data import decoders, transforms
from modelsoups.data.gpu import augment
from modelsoups.data.pictures import by_pil
from modelsoups.data.shards import CorruptImage


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(picture(0, 53, 41)), id="4:2:0"),
        pytest.param(encoded(picture(1, 53, 41), subsampling=0), id="4:4:4"),
        pytest.param(encoded(picture(2, 53, 41), subsampling=1), id="4:2:2"),
        pytest.param(encoded(picture(3, 53, 41), progressive=True), id="progressive"),
        pytest.param(encoded(picture(4, 53, 41), quality=20), id="coarse"),
        pytest.param(encoded(picture(5, 53, 41, 1)), id="grey"),
        pytest.param(encoded(picture(6, 53, 41).convert("CMYK")), id="CMYK"),
        pytest.param(encoded(picture(7, 53, 41), format="png"), id="png"),
        pytest.param(encoded(picture(8, 53, 41).convert("RGBA"), format="png"), id="png with alpha"),
        pytest.param(encoded(picture(9, 1, 1)), id="one pixel"),
    ],
)
def test_the_pixels_of_any_image_are_pils(data):
    border = 0 if by_pil(data).width == 1 else 2
    for cut in (0, border):
        assert np.array_equal(decoders.by_turbo(data, cut).permute(1, 2, 0).numpy(), np.asarray(by_pil(data, cut)))


@pytest.mark.parametrize("cut", [0, 2, 20, 300, -30])
def test_corrupt_images_raise_what_pil_raises(cut):
    data = encoded(picture(0, 50, 40))[:cut]
    with pytest.raises(Exception, match=r".*") as theirs:
        by_pil(data)
    with pytest.raises(theirs.type):
        decoders.by_turbo(data)


@pytest.mark.parametrize("size", [(500, 375), (341, 256), (60, 90), (224, 224), (3, 2)])
@pytest.mark.parametrize("aug", ["minimal", "rand-m0-n0"])
def test_crops_are_those_of_pil_within_three_levels_and_as_bright(size, aug):
    """The second's crop is timm's: 8 to 100% of the area, mirrored or not, by one of two interpolations.

    Usually 0.4% of the values are a level apart; where PyTorch's 16-bit weights round badly, a quarter are.
    """
    data = encoded(picture(size[0], *size))
    transform = transforms.train_crop(aug, 224, MEAN)
    for number in range(8):
        transforms.seed_sample(number)
        exact = decoders.augmented(transform, by_pil(data)).int()
        transforms.seed_sample(number)
        fast = decoders.augmented(transform, decoders.by_turbo(data)).int()
        apart = (fast - exact).float()
        assert fast.shape == exact.shape == (3, 224, 224)
        assert float(apart.abs().max()) <= 3
        assert float(apart.abs().mean()) < 0.3
        assert abs(float(apart.mean())) < 0.03


def test_what_comes_after_the_crop_draws_the_same_and_is_pils():
    """RandAugment's operations may amplify a level, so they are compared on a crop that is not resized."""
    image = picture(0, 32, 32)
    data = encoded(image, format="png")
    for aug in ("medium", "strong", "rand-m9-n2"):
        transform = transforms.train_crop(aug, 32, MEAN, min_crop=1.0)
        transform.transforms[0].ratio = (1.0, 1.0)
        for number in range(20):
            transforms.seed_sample(number)
            exact = decoders.augmented(transform, by_pil(data))
            transforms.seed_sample(number)
            assert decoders.augmented(transform, decoders.by_turbo(data)).equal(exact)


def test_pil_is_exactly_torchvisions():
    data = encoded(picture(0, 90, 60))
    transform = transforms.train_crop("minimal", 32, MEAN)
    transforms.seed_sample(1)
    image = by_pil(data)
    box = transform.get_params(image, (0.9, 1.0), (3 / 4, 4 / 3))
    transforms.seed_sample(1)
    ours = decoders.augmented(transform, image)
    assert ours.equal(tv.pil_to_tensor(tv.resized_crop(image, *box, [32, 32], tv.InterpolationMode.BICUBIC)))


def planned(images):
    """A batch as augment=gpu makes it, from the same random numbers each time."""
    transform, drawn = transforms.train_crop("rand-m9-n2", 32, MEAN), []
    ready = [image if isinstance(image, decoders.EncodedJpeg) else augment.canvas_pixels(image) for image in images]
    for i, image in enumerate(ready):
        transforms.seed_sample(i)
        drawn.append(augment.draw(transform, image, 32))
    return augment.plan_batch(ready, drawn, 32, MEAN).to(torch.device("cpu")).augmented()


@pytest.mark.parametrize("border", [0, 2])
def test_jpegs_that_wait_for_the_device_become_the_same_batch(border):
    """Also when they are larger than the canvas, or lie beside what only PIL decodes."""
    data = [encoded(picture(i, *size)) for i, size in enumerate([(60, 41), (700, 300), (33, 80)])]
    data.insert(1, encoded(picture(7, 50, 44), format="png"))
    data.append(encoded(picture(8, 50, 44).convert("CMYK")))
    waiting = [decoders.left_encoded(d, border) for d in data]
    assert [isinstance(w, decoders.EncodedJpeg) for w in waiting] == [True, False, True, True, False]
    assert planned(waiting).equal(planned([decoders.by_turbo(d, border) for d in data]))


def test_a_corrupt_jpeg_is_named_when_it_is_decoded_on_the_device_and_a_cut_one_before():
    good = encoded(picture(0, 50, 40))
    with pytest.raises(OSError, match="truncated"):
        decoders.left_encoded(good[:-30])
    broken = decoders.EncodedJpeg(good[:300] + decoders.END, 40, 50, 0, "train-000000.tar: image n01_1")
    both = [decoders.EncodedJpeg(good, 40, 50, 0), broken]
    with pytest.raises(CorruptImage, match=r"^train-000000\.tar: image n01_1 is corrupt \(.*\); move that shard away"):
        decoders.decode_on(torch.device("cpu"), both)


def test_decoding_on_the_gpu_needs_augmentation_there():
    with pytest.raises(ValueError, match=r"finetune\.decode=gpu needs finetune\.augment=gpu"):
        load(["finetune.decode=gpu"])
    assert load(["finetune.decode=gpu", "finetune.augment=gpu"]).finetune.decode == "gpu"
