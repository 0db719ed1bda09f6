"""What is no checkpoint that can be read: one line names the file, its kind and the way out."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from modelsoups import soup
from modelsoups.checkpoints import formats
from modelsoups.checkpoints.formats import open_checkpoint

FILES = ("a.pt", "b.safetensors", "c.pt")
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 605247000\n"


def refusal(source: Path) -> str:
    with pytest.raises(ValueError, match=source.name) as error:
        open_checkpoint(source)
    text = str(error.value)
    assert "\n" not in text
    assert "delete" not in text
    return text


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("m.safetensors", LFS, "git lfs pull"),
        ("m.bin", LFS, "git lfs pull"),
        ("m.safetensors", b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
        ("m.gguf", b"GGUF" + bytes(99), "GGUF"),
        ("m.pt", b"<!DOCTYPE html><html>", "web page"),
        ("m.bin", bytes([99]) + bytes(7) + b'{"w":{"dtype"', "give its name the suffix .safetensors"),
        ("m.onnx", bytes(99), "another format (ONNX's)"),
        ("m.msgpack", bytes(99), "another format (Flax's)"),
        ("m.npz", bytes(99), "another format (NumPy's)"),
        ("__0_0.distcp", bytes(99), "give its folder"),
        ("m.pkl", bytes(99), "a Python pickle, which can run code"),
        ("m.xyz", bytes(99), "unknown format"),
    ],
)
def test_foreign_files_are_told_by_content_and_name(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert told in refusal(tmp_path / name)


@pytest.mark.parametrize(
    ("inside", "told"),
    [
        (".metadata", "is not the metadata of a distributed checkpoint"),
        ("__0_0.distcp", "without its .metadata"),
        ("__0.metadata", "use_collectives=True"),
        ("zero_to_fp32.py", "run its zero_to_fp32.py"),
        ("tf_model.h5", "weights of TensorFlow"),
        ("flax_model.msgpack", "weights of Flax"),
        ("_CHECKPOINT_METADATA", "Orbax"),
        ("notes.txt", "no weights in this folder"),
    ],
)
def test_foreign_folders_are_told_by_what_is_in_them(tmp_path: Path, inside: str, told: str) -> None:
    (tmp_path / inside).write_bytes(b"x")
    assert told in refusal(tmp_path)


def test_pointers_in_a_folder_and_among_shards(tmp_path: Path) -> None:
    whole, shards = tmp_path / "whole", tmp_path / "shards"
    for folder in (whole, shards):
        folder.mkdir()
    (whole / "model.safetensors").write_bytes(LFS)
    (shards / "model-1.safetensors").write_bytes(LFS)
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "model-1.safetensors"}}))
    assert "git lfs pull" in refusal(whole)
    assert "shard model-1.safetensors is a pointer of Git LFS" in refusal(shards)


def test_pipes_and_devices_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pt")
    os.mkfifo(tmp_path / "a.safetensors")
    os.mkfifo(tmp_path / "model.safetensors.index.json")
    (tmp_path / "zero.safetensors").symlink_to("/dev/zero")
    for name in ("a.pt", "a.safetensors", "model.safetensors.index.json", "zero.safetensors"):
        assert "not a regular file; write the checkpoint to a regular file first" in refusal(tmp_path / name)


def test_names_that_are_not_utf_8_are_read_and_are_not_written(tmp_path: Path) -> None:
    """Linux allows any bytes in a name, but safetensors and torch's memory maps take UTF-8 alone."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    save_file({"w": torch.full((2,), 3.0)}, tmp_path / "b.safetensors")
    torch.save({"w": torch.full((2,), 5.0)}, tmp_path / "c.pt", pickle_protocol=4)
    paths = [(tmp_path / name).rename(folder / os.fsdecode(b"\xe8" + name.encode())) for name in FILES]
    soup.mix(soup.uniform(paths), tmp_path / "soup.safetensors")
    assert load_file(tmp_path / "soup.safetensors")["w"].tolist() == [3, 3]
    assert r"caf\udce9/\udce8a.pt" in (tmp_path / "soup.md").read_text()
    with pytest.raises(ValueError, match="has a name that is not UTF-8, which safetensors cannot open; rename it"):
        soup.mix(soup.uniform(paths), folder / "soup.safetensors")
    assert len(list(folder.iterdir())) == 3


def test_an_index_of_too_many_brackets_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text("[" * 100_000)
    assert "is not an index of shards" in refusal(tmp_path / "model.safetensors.index.json")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Cannot allocate memory"),
        RuntimeError("unable to mmap 9 bytes"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_short_memory_is_not_called_damage(tmp_path: Path, monkeypatch, error: Exception) -> None:
    def short(*_: object) -> None:
        raise error

    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    monkeypatch.setattr(formats, "safe_open", short)
    assert "memory or open files are at their limit" in refusal(tmp_path / "a.safetensors")
