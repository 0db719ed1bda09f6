"""The memory-mapped cache of a set's pixels: the same logits, decoded once, and damage named."""

from pathlib import Path

import pytest
import torch

from modelsoups import evaluate
from modelsoups.config import load
from modelsoups.data import decoded
from modelsoups.data.shards import ShardSet


def test_a_large_set_is_decoded_once_and_mapped(data: Path, tmp_path: Path, monkeypatch) -> None:
    dataset = ShardSet(data / "holdout")
    cfg = load([f"data.dir={data}", f"runs={tmp_path}"])
    expected = evaluate.kept_pixels(cfg, dataset, 16)
    assert expected is not None
    monkeypatch.setattr(evaluate, "IN_MEMORY", 0)
    monkeypatch.setattr(cfg.model, "image_size", 16)
    assert evaluate.kept_pixels(cfg, dataset, 16) is None  # nothing written: decoded as it goes
    assert torch.equal(torch.cat(list(evaluate.pixel_batches(cfg, dataset, 16))), expected)
    evaluate.decode_once(cfg, ["holdout"])
    folder = cfg.run.root / "pixels"
    assert not decoded.write(dataset, 16, folder)
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(ShardSet, "image", None)  # whoever decodes again fails
    assert torch.equal(torch.cat(list(evaluate.pixel_batches(cfg, dataset, 16))), expected)


def test_damaged_pixels_are_named_and_partial_ones_made_again(data: Path, tmp_path: Path) -> None:
    dataset = ShardSet(data / "holdout")
    assert decoded.write(dataset, 8, tmp_path)
    assert decoded.write(dataset, 9, tmp_path)  # another crop is another folder
    places = {p.name: p / "pixels.npy" for p in tmp_path.iterdir()}
    assert len(places) == 2
    for path in places.values():
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"pixels\.npy has changed since it was made; delete"):
        decoded.read(dataset, 8, tmp_path)
    for path in places.values():
        path.write_bytes(path.read_bytes()[:-1])
    assert decoded.read(dataset, 8, tmp_path) is None
    assert decoded.write(dataset, 8, tmp_path)
    assert decoded.read(dataset, 8, tmp_path) is not None


def test_what_is_over_the_budget_is_not_written(data: Path, tmp_path: Path, monkeypatch) -> None:
    dataset = ShardSet(data / "holdout")
    assert decoded.fits(dataset, 8, tmp_path / "not" / "there")
    monkeypatch.setattr(decoded, "BUDGET", decoded.size(dataset, 8) - 1)
    assert not decoded.fits(dataset, 8, tmp_path)
