"""The images of IconNet's sets: a set's name and the seed determine every byte."""

from __future__ import annotations

import numpy as np
import pytest

from modelsoups.miniature import adversarial, images, sets

CLASSES = len(sets.CLASSES)


def chunk_bytes(name: str, seed: int, chunk: int = 0) -> bytes:
    return b"".join(image.tobytes() for _, image, _ in images.render_chunk(name, seed, chunk))


@pytest.mark.parametrize("name", list(sets.SETS))
def test_bytes_depend_on_name_and_seed_only(name):
    first = chunk_bytes(name, 100)
    for cache in (images.draw_glyphs, sets.clutter, adversarial.candidates, adversarial.order):
        cache.cache_clear()
    chunk_bytes("r" if name != "r" else "v2", 101)
    assert chunk_bytes(name, 100) == first
    assert chunk_bytes(name, 101) != first


@pytest.mark.parametrize("name", list(sets.SETS))
def test_sizes_keys_and_labels(name):
    last = sets.SETS[name].chunks - 1
    chunk = images.render_chunk(name, 100, last)
    assert last * sets.CHUNK + len(chunk) == sets.SETS[name].count
    assert chunk[-1][0] == f"{name}-{sets.SETS[name].count - 1:05d}"
    assert chunk[0][1].shape == (32, 32, 3)
    assert {label for _, _, label in chunk} <= set(sets.SETS[name].label_of_class.values())


def test_train_and_holdout_split_one_draw_by_class():
    bytes_of = {}
    for name in ("train", "holdout"):
        samples = list(images.render_set(name, 100))
        counts = np.bincount([label for _, _, label in samples], minlength=CLASSES)
        assert (counts == sets.SETS[name].per_class).all()
        bytes_of[name] = {image.tobytes() for _, image, _ in samples}
    assert len(bytes_of["train"]) == sets.SETS["train"].count
    assert not bytes_of["train"] & bytes_of["holdout"]


def test_unknown_set_and_chunk():
    with pytest.raises(ValueError, match="data set imagenet: IconNet has only train, holdout"):
        next(images.render_set("imagenet", 0))
    with pytest.raises(ValueError, match="data set v2: no chunk 99"):
        images.render_chunk("v2", 0, 99)
