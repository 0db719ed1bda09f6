"""Training batches: the same with any number of processes and from any step on, each image once an epoch."""

import io
import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from modelsoups.data import loader, shards
from modelsoups.data.loader import Augmented, Preprocessing
from modelsoups.recipes.recipe import Recipe

MEAN = (0.5, 0.5, 0.5)
PLAIN = Preprocessing(32, MEAN)


def recipe(**other):
    values = {"lr": 1e-3, "weight_decay": 0.0, "label_smoothing": 0.0, "mixup": 0.0, "warmup_steps": 0, "clip": 1.0}
    return Recipe(**{**values, "epochs": 2, "batch_size": 4, "seed": 3, "aug": "rand-m7-n2", **other})


@pytest.fixture
def train(tmp_path):
    """18 images whose label is their number."""
    pixels = np.random.default_rng(0).integers(0, 256, (18, 32, 32, 3), dtype=np.uint8)
    samples = [(f"{i:02d}", shards.encode_png(image), "png", i) for i, image in enumerate(pixels)]
    entry = shards.write_shard(tmp_path / "train" / "train-000000.tar", samples)
    facts = dict.fromkeys(("name", "title", "role", "classes", "templates", "projection"))
    shards.finish_set(tmp_path / "train", {}, [entry], facts)
    return shards.ShardSet(tmp_path / "train")


def batches(train, first=0, **other):
    return list(loader.train_batches(train, recipe(**other), PLAIN, first))


def equal(some, others):
    return len(some) == len(others) and all(
        torch.equal(a, b) for pair in zip(some, others, strict=True) for a, b in zip(*pair, strict=True)
    )


def test_each_image_comes_at_most_once_an_epoch_in_another_order_each_time(train):
    labels = [labels_B.tolist() for _, labels_B in batches(train)]
    assert [len(b) for b in labels] == [4] * 8  # 18 // 4 batches in each of two epochs
    epochs = [[i for batch in part for i in batch] for part in (labels[:4], labels[4:])]
    assert all(len(set(e)) == 16 for e in epochs)
    assert epochs[0] != epochs[1]


def test_batches_do_not_depend_on_where_they_begin(train):
    everything = batches(train)
    torch.rand(5), np.random.rand(3)
    for first in (1, 4, 7, 8):
        assert equal(batches(train, first), everything[first:])


def test_batches_do_not_depend_on_processes(train, monkeypatch):
    here = batches(train)
    monkeypatch.setattr(loader, "KEEP_DECODED", 0)
    for cores in (1, 2, 3):
        monkeypatch.setattr(loader, "cores", lambda n=cores: n)
        assert loader.loader_processes(train, 1) == cores - 1
        assert equal(batches(train), here)
        assert equal(batches(train, first=5), here[5:])


def test_the_recipe_reaches_the_transform(train):
    plain = batches(train, aug="minimal")
    for change in ({"seed": 4}, {"aug": "rand-m7-n0"}):
        assert not equal(batches(train, **{"aug": "minimal", **change}), plain)
    mirrored = {"aug": "rand-m0-n0", "min_crop": 1.0}
    assert not equal(batches(train, flip=0.0, **mirrored), batches(train, flip=1.0, **mirrored))
    assert not equal(batches(train, aug="rand-m0-n0", min_crop=0.1), batches(train, aug="rand-m0-n0", min_crop=0.9))


@pytest.mark.parametrize("cores", [1, 3])
def test_a_corrupt_image_is_named_in_one_line(train, monkeypatch, cores):
    monkeypatch.setattr(loader, "KEEP_DECODED", 0)
    monkeypatch.setattr(loader, "cores", lambda: cores)
    path = train.folder / "train-000000.tar"
    content = path.read_bytes()
    start = int(train.offset_N[7]) + 60
    path.write_bytes(content[:start] + b"x" * 100 + content[start + 100 :])
    os.utime(path, (1, 1))  # a disk that decays leaves the time
    with pytest.raises(ValueError, match=r"^\S*train-000000\.tar: image 07 is corrupt [^\n]*$"):
        batches(train)


def test_the_shares_of_all_ranks_are_the_batch_and_keep_its_pairs():
    index_B = torch.arange(24)
    for ranks, parts in [(1, 1), (2, 1), (4, 1), (1, 3), (2, 3), (12, 1)]:
        pieces = [p for r in range(ranks) for p in loader.Share(r, ranks, parts).of(index_B)]
        assert len({len(p) for p in pieces}) == 1
        assert sorted(torch.cat(pieces).tolist()) == list(range(24))
        assert all(torch.equal(p + p.flip(0), torch.full_like(p, 23)) for p in pieces)  # i and 23 - i: mixup's pairs


def test_an_epoch_over_ranks_and_processes_has_each_image_once(train, monkeypatch):
    monkeypatch.setattr(loader, "KEEP_DECODED", 0)
    monkeypatch.setattr(loader, "cores", lambda: 2)
    whole = [labels_B.tolist() for _, labels_B in batches(train)]
    parts = []
    for rank in range(2):
        share = loader.Share(rank, 2)
        got = loader.train_batches(train, recipe(), PLAIN, 0, share)
        parts.append([labels_B.tolist() for _, labels_B in got])
    assert [sorted(a + b) for a, b in zip(*parts, strict=True)] == [sorted(b) for b in whole]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more processes than this machine has cores
@pytest.mark.parametrize("number", range(1, 9))
def test_an_epoch_has_each_image_once_over_any_number_of_ranks_and_processes(train, monkeypatch, number):
    """And the same pixels: number ranks with a process each, and one rank with number processes, as one alone."""
    monkeypatch.setattr(loader, "KEEP_DECODED", 0)
    changes = {"batch_size": 2 * number, "epochs": 1, "aug": "rand-m7-n1"}
    monkeypatch.setattr(loader, "cores", lambda: 1)
    alone = batches(train, **changes)
    seen = [i for _, labels_B in alone for i in labels_B.tolist()]
    assert len(set(seen)) == len(seen) == 18 // (2 * number) * 2 * number
    parts = []
    for rank in range(number):
        share = loader.Share(rank, number)
        parts.append(list(loader.train_batches(train, recipe(**changes), PLAIN, 0, share)))
    for whole, *pieces in zip(alone, *parts, strict=True):
        pixels_BCHW, labels_B = (torch.cat(p) for p in zip(*pieces, strict=True))
        assert pixels_BCHW[labels_B.argsort()].equal(whole[0][whole[1].argsort()])
    monkeypatch.setattr(loader, "cores", lambda: number + 1)
    assert equal(batches(train, **changes), alone)


def corrupted(train, *indices):
    """The set with the middle of some images overwritten."""
    path = train.folder / "train-000000.tar"
    content = bytearray(path.read_bytes())
    for index in indices:
        start = int(train.offset_N[index]) + 60
        content[start : start + 100] = b"x" * 100
    path.write_bytes(content)
    os.utime(path, (1, 1))  # a disk that decays leaves the time


@pytest.mark.parametrize("cores", [1, 3])
def test_corrupt_images_are_replaced_counted_and_limited(train, monkeypatch, capsys, cores):
    monkeypatch.setattr(loader, "KEEP_DECODED", 0)
    monkeypatch.setattr(loader, "cores", lambda: cores)
    whole = batches(train, batch_size=18)
    corrupted(train, 7, 8, 17)
    skipped = loader.Skipped(train, limit=3)
    got = list(loader.train_batches(train, recipe(batch_size=18), PLAIN, 0, skipped=skipped))
    assert sorted(skipped.keys) == ["07", "08", "17"]
    for (pixels_BCHW, labels_B), (before_BCHW, names_B) in zip(got, whole, strict=True):
        expected = [{7: 9, 8: 9, 17: 0}.get(i, i) for i in names_B.tolist()]  # the next that is whole
        assert labels_B.tolist() == expected
        kept_B = labels_B == names_B
        assert pixels_BCHW[kept_B].equal(before_BCHW[kept_B])
    assert "image 17 is corrupt and replaced by the next image (" in (said := capsys.readouterr().out)
    assert said.count("is corrupt") == 3  # once each, not once an epoch
    few = loader.Skipped(train, limit=2)
    with pytest.raises(
        ValueError,
        match=r"image \d+ is corrupt, one more than finetune\.skip_corrupt=2 allows; before it \d+, \d+; for",
    ):
        list(loader.train_batches(train, recipe(batch_size=18), PLAIN, 0, skipped=few))


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("gone", [True, False])
def test_a_shard_that_vanishes_is_not_taken_for_corrupt_images(train, monkeypatch, cores, gone):
    monkeypatch.setattr(loader, "KEEP_DECODED", 0)
    monkeypatch.setattr(loader, "cores", lambda: cores)
    shard = train.folder / "train-000000.tar"
    shard.unlink() if gone else shard.write_bytes(shard.read_bytes()[:2000])
    message = "can no longer be read" if gone else "was truncated while in use"
    skipped = loader.Skipped(train, limit=99)
    with pytest.raises(ValueError, match=rf"^\S*train-000000\.tar {message}[^\n]* to continue$"):
        list(loader.train_batches(train, recipe(), PLAIN, 0, skipped=skipped))


def test_fix_augmentation_is_strong_until_the_last_epoch_and_stochastic_takes_all_three(train):
    fix = Augmented(train, recipe(aug="fix", epochs=3), PLAIN)
    assert [fix.policy(epoch) for epoch in range(3)] == ["strong", "strong", "minimal"]
    assert list(fix.crops) == ["strong", "minimal"]
    stochastic = Augmented(train, recipe(aug="stochastic"), PLAIN)
    assert {stochastic.policy(0) for _ in range(50)} == {"minimal", "medium", "strong"}


def test_the_images_of_a_small_set_are_decoded_once_for_all_runs(train, monkeypatch):
    before = batches(train)
    monkeypatch.setattr(shards.ShardSet, "read", None)  # reading again fails
    assert equal(batches(train), before)
    with pytest.raises(TypeError):
        list(loader.train_batches(train, recipe(), Preprocessing(32, MEAN, "turbo"), 0))


def test_memory_is_flat_over_three_epochs(tmp_path, monkeypatch):
    """Images of half a megabyte each, read once an epoch; nothing of them is kept."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (375, 500, 3), dtype=np.uint8)).save(buffer, "jpeg")
    entry = shards.write_shard(tmp_path / "t-000000.tar", [(str(i), buffer.getvalue(), "jpg", i) for i in range(64)])
    facts = dict.fromkeys(("name", "title", "role", "classes", "templates", "projection"))
    shards.finish_set(tmp_path, {}, [entry], facts)
    monkeypatch.setattr(loader, "KEEP_DECODED", 0)
    monkeypatch.setattr(loader, "cores", lambda: 1)
    train, used = shards.ShardSet(tmp_path), []
    plain = recipe(batch_size=16, epochs=4, aug="minimal")
    for _ in loader.train_batches(train, plain, Preprocessing(224, MEAN, "turbo"), 0):
        used.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20)
    epochs = [max(used[4 * e : 4 * e + 4]) for e in range(4)]
    assert epochs[3] - epochs[0] < 12  # an epoch's images are 36 MB decoded, its crops 10
