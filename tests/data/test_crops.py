"""Crops of a set decoded once: equal in memory, in a file and on the way; a damaged file is named."""

import errno
import os
from pathlib import Path

import pytest
import torch

from modelsoups.data.crops import Crops, CropStore, decoded_bytes
from modelsoups.data.shards import ShardSet
from modelsoups.data.transforms import View


@pytest.fixture
def dataset(data: Path) -> ShardSet:
    return ShardSet(data / "holdout")


def test_a_small_set_is_decoded_once_in_memory(dataset, tmp_path, monkeypatch):
    store = CropStore(tmp_path / "pixels")
    crops = Crops(dataset, View(16))
    expected = torch.stack([crops[i] for i in range(len(crops))])
    assert not store.prepare(dataset, View(16))
    assert torch.equal(store.pixels(dataset, View(16)), expected)
    monkeypatch.setattr(ShardSet, "image", None)  # decoding again fails
    parts = list(store.batches(dataset, View(16), 50))
    assert [len(part) for part in parts] == [50, 50, 28]
    assert torch.equal(torch.cat(parts), expected)
    assert not (tmp_path / "pixels").exists()


def test_a_large_set_is_decoded_once_and_mapped(dataset, tmp_path, monkeypatch):
    expected = CropStore(tmp_path).pixels(dataset, View(16))
    store = CropStore(tmp_path, small=0)
    assert store.pixels(dataset, View(16)) is None  # nothing is written yet: decoded on the way
    assert torch.equal(torch.cat(list(store.batches(dataset, View(16), 50))), expected)
    assert store.prepare(dataset, View(16))
    assert not store.prepare(dataset, View(16))
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(ShardSet, "image", None)  # decoding again fails
    for opened in (store, CropStore(tmp_path, small=0)):
        assert torch.equal(torch.cat(list(opened.batches(dataset, View(16), 50))), expected)


def test_damaged_pixels_are_named_and_partial_ones_made_again(dataset, tmp_path):
    store = CropStore(tmp_path, small=0)
    assert store.prepare(dataset, View(8))
    assert store.prepare(dataset, View(9))  # another crop is another folder
    places = [folder / "pixels.npy" for folder in tmp_path.iterdir()]
    assert len(places) == 2
    for path in places:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"pixels\.npy has changed since it was written; move"):
        store.pixels(dataset, View(8))
    for path in places:
        path.write_bytes(path.read_bytes()[:-1])
    assert store.pixels(dataset, View(8)) is None
    assert store.prepare(dataset, View(8))
    assert store.pixels(dataset, View(8)) is not None


def test_a_set_over_the_disk_limit_is_not_written(dataset, tmp_path):
    size = decoded_bytes(dataset, View(8))
    assert not CropStore(tmp_path, small=0, disk=size - 1).prepare(dataset, View(8))
    assert CropStore(tmp_path / "not" / "there", small=0, disk=size).prepare(dataset, View(8))


def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing(dataset, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        OSError, match=r"could not write .*/holdout-\w+/pixels\.npy: Disk quota exceeded; free disk space"
    ):
        CropStore(tmp_path, small=0).prepare(dataset, View(8))
    assert list(tmp_path.iterdir()) == []
