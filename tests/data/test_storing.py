"""How `prepare` stores images: resized, and decoded (data.train_format=raw)."""

import io

import numpy as np
import pytest
import torch
from photos import MEAN, encoded, photos
from PIL import Image

from modelsoups.config.compose import load
from modelsoups.data import loader
from modelsoups.data.decoders import DECODERS
from modelsoups.data.gpu.augment import BatchPlan
from modelsoups.data.shards import CorruptImage, ShardSet, finish_set, write_shard
from modelsoups.data.storing import Storing, stored
from modelsoups.recipes.recipe import Recipe

RAW = Storing(40, raw=True)


def resized(data, side):
    """The pixels that prepare shrinks an image to, by PIL alone; one that is not larger stays."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    if min(image.size) <= side:
        return np.asarray(image)
    scale = side / min(image.size)
    width, height = image.size
    size = (side, int(height * scale)) if width <= height else (int(width * scale), side)
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


@pytest.mark.parametrize("decoder", ["pil", "turbo", "gpu"])
@pytest.mark.parametrize("border", [0, 2])
def test_decoded_images_are_the_resized_pixels_for_every_decoder(decoder, border):
    for image in photos(8):
        data = encoded(image)
        content, kind = stored(data, "x", RAW)
        found = DECODERS[decoder](content, border)
        pixels_HWC = np.asarray(found) if decoder == "pil" else found.permute(1, 2, 0).numpy()
        expected = resized(data, 40)
        height, width, _ = expected.shape
        assert kind == "ppm"
        assert np.array_equal(pixels_HWC, expected[border : height - border, border : width - border])


@pytest.mark.parametrize("changed", [lambda data: data[:-1], lambda data: data.replace(b"\n255\n", b"\n999\n")])
def test_a_damaged_decoded_image_is_named_by_every_decoder(tmp_path, changed):
    content, _ = stored(encoded(next(photos(1))), "x", RAW)
    whole = prepared(tmp_path / "train", [(changed(content), "ppm")])
    for decoder in DECODERS.values():
        with pytest.raises(CorruptImage, match=r"train-000000\.tar: image 000 is corrupt"):
            whole.decoded(0, decoder)


def prepared(folder, samples):
    samples = [(f"{i:03d}", content, kind, i % 3) for i, (content, kind) in enumerate(samples)]
    entry = write_shard(folder / "train-000000.tar", iter(samples))
    facts = {"name": "train", "title": "Train", "role": "train", "templates": ["{}"], "projection": None}
    finish_set(folder, {}, [entry], {**facts, "classes": ["a", "b", "c"]})
    return ShardSet(folder)


@pytest.mark.parametrize("augment", ["cpu", "gpu"])
def test_batches_of_decoded_images_equal_those_of_lossless_files_of_the_same_size(tmp_path, augment):
    """So the draws are those that images of this size have, and no pixel differs."""
    originals = [encoded(image) for image in photos(12)]
    raw = prepared(tmp_path / "raw" / "train", [stored(data, "x", RAW) for data in originals])
    files = []
    for data in originals:
        buffer = io.BytesIO()
        Image.fromarray(resized(data, 40)).save(buffer, format="png")
        files.append((buffer.getvalue(), "png"))
    lossless = prepared(tmp_path / "png" / "train", files)
    recipe = Recipe(
        lr=1e-3, weight_decay=0.1, epochs=2, label_smoothing=0.0, mixup=0.0, aug="rand-m9-n2", seed=3, batch_size=4
    )
    for decoder in ("pil", "turbo"):
        how = loader.Preprocessing(24, MEAN, decoder, augment)
        batches = [list(loader.train_batches(images, recipe, how, 1)) for images in (raw, lossless)]
        assert len(batches[0]) == 5
        for (one, labels), (other, same_labels) in zip(*batches, strict=True):
            one, other = (b.augmented() if isinstance(b, BatchPlan) else b for b in (one, other))
            assert torch.equal(one, other)
            assert torch.equal(labels, same_labels)


def test_images_as_they_are_keep_their_bytes_and_resized_ones_only_shrink():
    data = encoded(Image.new("RGB", (96, 64)))
    assert stored(data, "x", Storing()) == (data, "jpg")
    assert stored(data, "x", Storing(64)) == (data, "jpg")
    small, kind = stored(data, "x", Storing(32))
    assert (kind, Image.open(io.BytesIO(small)).size) == ("jpg", (48, 32))


def test_the_disk_space_of_decoded_images_is_estimated_before_they_are_written():
    size_N = np.array([10_000, 20_000])
    assert Storing().expected(size_N) == 30_000
    assert Storing(256, raw=True).expected(size_N) == 2 * 256 * 256 * 4  # 3 bytes a pixel, sides of 4 to 3


def test_decoded_images_of_full_size_are_refused():
    data = load(["data.train_format=raw"]).data
    with pytest.raises(ValueError, match=r"data\.train_format=raw needs data\.train_resize, such as 256"):
        Storing.of(data, training=True)
    assert Storing.of(data, training=False) == Storing()  # evaluation sets are stored as they are
