"""Shards: plain WebDataset tars, read back in any order, the same bytes each time, damage named."""

import hashlib
import os
import tarfile

import numpy as np
import pytest
import webdataset

from modelsoups.data import shards

IMAGES_NHWC = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3), dtype=np.uint8)


def make(folder, images=IMAGES_NHWC):
    samples = [(f"k-{i}", shards.encode_png(image), "png", i % 3) for i, image in enumerate(images)]
    entries = [shards.write_shard(folder / f"s-{j:06d}.tar", samples[3 * j : 3 * j + 3]) for j in range(3)]
    facts = {"name": "s", "title": "S", "role": "test", "classes": ["a", "b", "c"], "templates": ["{}"]}
    shards.finish_set(folder, {"seed": 0}, entries, {**facts, "projection": None})
    return folder


def test_images_labels_and_keys_come_back_in_any_order(tmp_path):
    dataset = shards.ShardSet(make(tmp_path))
    assert len(dataset) == 7
    assert dataset.labels_N.tolist() == [0, 1, 2, 0, 1, 2, 0]
    for i in (6, 0, 3, 5, 1, 4, 2):
        assert dataset.keys_N[i] == f"k-{i}"
        assert (np.asarray(dataset.image(i)) == IMAGES_NHWC[i]).all()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset does not close its file
def test_webdataset_reads_them_too(tmp_path):
    make(tmp_path)
    samples = list(webdataset.WebDataset(str(tmp_path / "s-000000.tar"), shardshuffle=False).decode("rgb8"))
    assert [s["__key__"] for s in samples] == ["k-0", "k-1", "k-2"]
    assert [s["cls"] for s in samples] == [0, 1, 2]
    assert (samples[1]["png"] == IMAGES_NHWC[1]).all()


def test_same_images_same_bytes_and_any_change_another_hash(tmp_path):
    one, two = (shards.ShardSet(make(tmp_path / n)) for n in "ab")
    assert (tmp_path / "a/s-000001.tar").read_bytes() == (tmp_path / "b/s-000001.tar").read_bytes()
    assert one.sha256 == two.sha256
    changed = IMAGES_NHWC.copy()
    changed[6, 0, 0, 0] ^= 1
    assert shards.ShardSet(make(tmp_path / "c", changed)).sha256 != one.sha256


@pytest.mark.parametrize("damage", ["truncate", "delete"])
def test_a_damaged_shard_is_named_with_the_way_out(tmp_path, damage):
    make(tmp_path)
    shard = tmp_path / "s-000001.tar"
    shard.write_bytes(shard.read_bytes()[:1000]) if damage == "truncate" else shard.unlink()
    with pytest.raises(ValueError, match=r"s-000001\.tar is (truncated|missing).*modelsoups prepare"):
        shards.ShardSet(tmp_path)


def test_a_corrupt_image_is_named_by_shard_and_key(tmp_path):
    make(tmp_path)
    shard = tmp_path / "s-000001.tar"
    with tarfile.open(shard) as tar:
        offset = tar.getmember("k-4.png").offset_data
    content = bytearray(shard.read_bytes())
    content[offset : offset + 20] = bytes(20)
    shard.write_bytes(content)
    os.utime(shard, (1, 1))  # a disk that decays leaves the time
    dataset = shards.ShardSet(tmp_path)
    dataset.image(3)
    with pytest.raises(ValueError, match=r"s-000001\.tar: image k-4 is corrupt"):
        dataset.image(4)


def test_an_unprepared_folder_and_an_empty_shard_are_errors(tmp_path):
    with pytest.raises(ValueError, match="no prepared data set; run `modelsoups prepare`"):
        shards.ShardSet(tmp_path)
    with pytest.raises(ValueError, match="at least one image"):
        shards.write_shard(tmp_path / "e-000000.tar", [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("extension", ["png", "jpg", "bmp"])  # before and after the label in the tar
def test_the_index_points_at_the_bytes_and_names_the_files_hash(tmp_path, extension):
    samples = [(f"n0_{i}", bytes([i]) * size, extension, i) for i, size in enumerate((1, 511, 512, 513, 20_000))]
    entry = shards.write_shard(tmp_path / "s-000000.tar", samples)
    content = (tmp_path / "s-000000.tar").read_bytes()
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    with np.load(tmp_path / "s-000000.npz") as index:
        found = [content[o : o + s] for o, s in zip(index["offset"], index["size"], strict=True)]
    assert found == [data for _, data, _, _ in samples]
    with tarfile.open(tmp_path / "s-000000.tar") as archive:
        assert {m.name for m in archive} == {f"n0_{i}.{e}" for i in range(5) for e in (extension, "cls")}


def test_a_shard_that_was_written_to_is_named_and_a_copied_one_is_not(tmp_path):
    make(tmp_path / "set")
    shard, manifest = tmp_path / "set" / "s-000001.tar", tmp_path / "set" / "manifest.json"
    later = manifest.stat().st_mtime + 10
    os.utime(shard, (later, later))  # as of a copy of the folder
    assert len(shards.ShardSet(tmp_path / "set")) == 7
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    os.utime(shard, (later * 2, later * 2))
    with pytest.raises(ValueError, match=r"s-000001\.tar has changed since it was written; run `modelsoups prepare`"):
        shards.ShardSet(tmp_path / "set")
