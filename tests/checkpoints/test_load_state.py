"""Reading whole files into memory: damaged, foreign and malicious ones are refused by name."""

import os
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from modelsoups.checkpoints.formats import load_state
from modelsoups.checkpoints.states import state_sha256

STATE = {"head.weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7), "half": torch.ones(2).half()}


def save(path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path)
    return path


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.pth", "a.bin"])
def test_every_container_gives_the_same_state(tmp_path: Path, name: str) -> None:
    state = load_state(save(tmp_path / name))
    assert sorted(state) == sorted(STATE)
    assert all(torch.equal(state[k], STATE[k]) and state[k].dtype == STATE[k].dtype for k in STATE)
    assert state_sha256(state) == state_sha256(STATE)


def test_checkpoints_of_old_pytorch_load(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert state_sha256(load_state(tmp_path / "old.pt")) == state_sha256(STATE)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("pwned",)


def write_bad(path: Path, how: str) -> None:
    whole = save(path).read_bytes()
    content = {
        "half": whole[: len(whole) // 2],
        "cut": whole[:-3],
        "empty": b"",
        "text": b"hello world, this is no checkpoint",
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(200),
        "zip": b"PK\x03\x04" + bytes(200),
        "bomb": struct.pack("<Q", 2**60) + b"{}",
    }
    path.write_bytes(content[how])


@pytest.mark.parametrize("how", ["half", "cut", "empty", "text", "picture", "zip", "bomb"])
@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_damaged_and_foreign_files_are_named(tmp_path: Path, name: str, how: str) -> None:
    write_bad(tmp_path / name, how)
    with pytest.raises(ValueError, match=f"{name} is truncated") as error:
        load_state(tmp_path / name)
    assert "\n" not in str(error.value)
    assert "save it again" in str(error.value)


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(ValueError, match=r"a\.pt is an undamaged zip archive, but torch\.load cannot read it"):
        load_state(tmp_path / "a.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, "evil.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"evil\.pt contains Python objects \(\w+\.mkdir\)") as error:
        load_state(Path("evil.pt"))
    assert "\n" not in str(error.value)
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "contains a list, not a dict of tensors"),
        ({}, "has no dict of tensors"),
        ({"epoch": 3, "state_dict": STATE}, "has tensors only in its entry state_dict; save model"),
        ({1: torch.ones(1)}, "has no dict of tensors"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=message):
        load_state(tmp_path / "a.pt")


def test_missing_files_folders_and_unknown_kinds(tmp_path: Path) -> None:
    (tmp_path / "folder.pt").mkdir()
    for name in ("no.pt", "no.safetensors"):
        with pytest.raises(ValueError, match=f"{name} cannot be read"):
            load_state(tmp_path / name)
    with pytest.raises(ValueError, match=r"ending in \.safetensors, \.pt, \.pth, \.bin"):
        load_state(tmp_path / "a.onnx")
    with pytest.raises(ValueError, match=r"folder\.pt: unknown format"):
        load_state(tmp_path / "folder.pt")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([".pt", ".safetensors"]))
def test_no_bytes_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.(pt|safetensors)"):
        load_state(path)
