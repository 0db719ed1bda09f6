"""The memory-mapped cache of a set's pixels: the same logits, decoded once, and damage named."""

from pathlib import Path

import pytest
import torch

from modelsoups.config.compose import load
from modelsoups.data import crops
from modelsoups.data.shards import ShardSet
from modelsoups.experiment import logits


def test_a_large_set_is_decoded_once_and_mapped(data: Path, tmp_path: Path, monkeypatch) -> None:
    dataset = ShardSet(data / "holdout")
    cfg = load([f"data.dir={data}", f"runs={tmp_path}"])
    expected = logits.kept_pixels(cfg, dataset, 16)
    assert expected is not None
    monkeypatch.setattr(logits, "IN_MEMORY", 0)
    monkeypatch.setattr(cfg.model, "image_size", 16)
    assert logits.kept_pixels(cfg, dataset, 16) is None  # nothing written: decoded as it goes
    assert torch.equal(torch.cat(list(logits.pixel_batches(cfg, dataset, 16))), expected)
    logits.decode_once(cfg, ["holdout"])
    folder = cfg.run.root / "pixels"
    assert not crops.write(dataset, 16, folder)
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(ShardSet, "image", None)  # whoever decodes again fails
    assert torch.equal(torch.cat(list(logits.pixel_batches(cfg, dataset, 16))), expected)


def test_damaged_pixels_are_named_and_partial_ones_made_again(data: Path, tmp_path: Path) -> None:
    dataset = ShardSet(data / "holdout")
    assert crops.write(dataset, 8, tmp_path)
    assert crops.write(dataset, 9, tmp_path)  # another crop is another folder
    places = {p.name: p / "pixels.npy" for p in tmp_path.iterdir()}
    assert len(places) == 2
    for path in places.values():
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"pixels\.npy has changed since it was made; delete"):
        crops.read(dataset, 8, tmp_path)
    for path in places.values():
        path.write_bytes(path.read_bytes()[:-1])
    assert crops.read(dataset, 8, tmp_path) is None
    assert crops.write(dataset, 8, tmp_path)
    assert crops.read(dataset, 8, tmp_path) is not None


def test_what_is_over_the_budget_is_not_written(data: Path, tmp_path: Path, monkeypatch) -> None:
    dataset = ShardSet(data / "holdout")
    assert crops.fits(dataset, 8, tmp_path / "not" / "there")
    monkeypatch.setattr(crops, "BUDGET", crops.size(dataset, 8) - 1)
    assert not crops.fits(dataset, 8, tmp_path)
