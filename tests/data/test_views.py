"""How images are evaluated and cropped for training, against transforms written out by hand with PIL alone."""

import numpy as np
import pytest
from PIL import Image

from modelsoups.data import transforms
from modelsoups.data.crops import CropStore
from modelsoups.data.gpu.augment import draw
from modelsoups.data.shards import ShardSet
from modelsoups.data.transforms import View, eval_crop, train_crop

RNG = np.random.default_rng(0)
SIZES = [(500, 375), (375, 500), (640, 640), (300, 900), (1024, 200)]
MEAN = (0.5, 0.5, 0.5)


def image(width, height):
    coarse = RNG.integers(0, 256, (height // 20 + 1, width // 20 + 1, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


@pytest.mark.parametrize("size", SIZES)
def test_the_view_of_vit_g_is_550_without_aspect_ratio_and_518_of_its_centre(size):
    """Appendix J.2.3."""
    picture = image(*size)
    expected = picture.resize((550, 550), Image.Resampling.BICUBIC).crop((16, 16, 534, 534))
    found = eval_crop(View(518, 550, squash=True))(picture)
    assert np.array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.parametrize("size", SIZES)
def test_the_view_of_align_is_a_square_centre_of_360(size):
    """Appendix J.2.2: the shorter side gets 360 pixels, the longer one its share, rounded down."""
    picture, shorter = image(*size), min(size)
    width, height = (360 * side // shorter for side in size)
    left, top = round((width - 360) / 2), round((height - 360) / 2)
    whole = picture.resize((width, height), Image.Resampling.BICUBIC)
    expected = whole.crop((left, top, left + 360, top + 360))
    assert np.array_equal(np.asarray(eval_crop(View(360))(picture)), np.asarray(expected))


@pytest.mark.parametrize("size", SIZES)
def test_the_view_of_basic_is_the_whole_image_at_500(size):
    """Appendix C."""
    picture = image(*size)
    expected = picture.resize((500, 500), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(eval_crop(View(500, squash=True))(picture)), np.asarray(expected))


def test_names_and_changes_of_views_tell_them_apart():
    views = [View(32), View(32, 40), View(32, 40, True), View(32, squash=True), View(40)]
    names = ["32", "32-of-40", "32-of-40-squashed", "32-squashed", "40"]
    assert [view.name for view in views] == names
    assert (View(32).changes(), View(32, 32).changes(), View(32, 32).name) == ({}, {}, "32")


def test_pixels_of_two_views_lie_in_two_files(data, tmp_path):
    dataset, store = ShardSet(data / "holdout"), CropStore(tmp_path, small=0)
    assert store.prepare(dataset, View(8))
    assert store.prepare(dataset, View(8, 12, squash=True))
    assert len(list(tmp_path.iterdir())) == 2
    squashed = eval_crop(View(8, 12, squash=True))(dataset.image(3))
    found = store.pixels(dataset, View(8, 12, squash=True))[3].permute(1, 2, 0).numpy()
    assert np.array_equal(found, np.asarray(squashed))


@pytest.mark.parametrize(("least", "ratio"), [(0.05, (0.75, 4 / 3)), (0.9, (0.95, 1.05))])
def test_inception_crops_have_the_area_and_aspect_ratio_asked_for_and_nothing_else(least, ratio):
    """Appendix J.2.2: 5% to 100% of the area at 0.75 to 1.33, or 90% to 100% at 0.95 to 1.05, on 289 pixels."""
    picture = image(600, 600)
    crop = train_crop("inception", 289, MEAN, least, 0.5, ratio)
    areas, flips = [], 0
    for number in range(200):
        transforms.seed_sample(number)
        drawn = draw(crop, picture, 289)
        top, left, height, width = drawn.box
        areas.append(width * height / 600**2)
        assert ratio[0] - 0.02 <= width / height <= ratio[1] + 0.02
        flips += drawn.flip
        if number < 10:
            by_hand = picture.crop((left, top, left + width, top + height)).resize((289, 289), Image.Resampling.BICUBIC)
            by_hand = by_hand.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if drawn.flip else by_hand
            transforms.seed_sample(number)
            assert np.array_equal(np.asarray(crop(picture)), np.asarray(by_hand))
    assert least - 0.01 <= min(areas) < max(areas) <= 1
    assert min(areas) < least + 0.1
    assert 70 < flips < 130
