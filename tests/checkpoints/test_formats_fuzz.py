"""Mutated checkpoints of every format, for a bounded time: an error that names the file, or a state; never a crash."""

import json
import random
import time
from pathlib import Path

import pytest
import torch
from mutations import mutated
from safetensors.torch import save_file

from modelsoups import soup

SECONDS, TRIES = 4.0, 1000  # of each format at most: the same thousand on any machine that is fast enough
STATE = {"blocks.0.w": torch.arange(6.0).reshape(2, 3), "head.w": torch.ones(2), "steps": torch.tensor(7)}


def originals(folder: Path) -> dict[str, Path]:
    (folder / "hf").mkdir()
    (first, tensor), *others = STATE.items()
    save_file({first: tensor}, folder / "hf" / "part-1.safetensors")
    save_file(dict(others), folder / "hf" / "part-2.safetensors")
    index = {"weight_map": {k: f"part-{1 if k == first else 2}.safetensors" for k in STATE}}
    (folder / "hf" / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file(STATE, folder / "a.safetensors")
    torch.save(STATE, folder / "a.pt")
    torch.save({"state_dict": STATE, "epoch": 3}, folder / "a.ckpt", _use_new_zipfile_serialization=False)
    names = {"safetensors": "a.safetensors", "zip": "a.pt", "pickle": "a.ckpt"}
    shards = {"index": "model.safetensors.index.json", "shard": "part-2.safetensors"}
    return {**{k: folder / v for k, v in names.items()}, **{k: folder / "hf" / v for k, v in shards.items()}}


@pytest.mark.parametrize("kind", ["safetensors", "zip", "pickle", "index", "shard"])
def test_mutated_checkpoints_are_read_or_named(tmp_path: Path, kind: str) -> None:
    whole = originals(tmp_path)[kind]
    read = whole.with_name("model.safetensors.index.json") if kind == "shard" else whole
    content, rng, good = whole.read_bytes(), random.Random(0), tmp_path / "good.safetensors"
    save_file(STATE, good)
    before = set(tmp_path.iterdir())
    end, refused, tried = time.monotonic() + SECONDS, 0, 0
    while time.monotonic() < end and tried < TRIES:
        whole.write_bytes(mutated(content, rng))
        tried += 1
        try:
            soup.mix(soup.uniform([good, read]), tmp_path / "out.safetensors")
        except ValueError as error:
            refused += 1
            text = str(error)
            assert whole.name in text or "part-" in text or "tensor" in text, text
            assert not (tmp_path / "out.safetensors").exists()
        else:
            for name in ("out.safetensors", "out.md"):
                (tmp_path / name).unlink()
        assert set(tmp_path.iterdir()) == before
    assert refused > 10, (tried, refused)
