"""PyTorch files of every kind; the places of their tensors are kept while the file does not change."""

import argparse
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from modelsoups.checkpoints import pytorch
from modelsoups.checkpoints.formats import open_checkpoint
from modelsoups.checkpoints.pytorch import KnownPlaces

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2).bfloat16(), "n": torch.tensor(7)}
STATE["tied"] = STATE["b"]


def same(got, state=STATE) -> bool:
    return got.keys() == state.keys() and all(torch.equal(got[k], v) for k, v in state.items())


def counted(monkeypatch) -> list[Path]:
    """The files that are unpickled from now on."""
    read: list[Path] = []
    read_pickle = pytorch.read_pickle
    monkeypatch.setattr(pytorch, "read_pickle", lambda path: (read.append(path), read_pickle(path))[1])
    return read


def test_places_in_a_file_are_known_while_it_does_not_change(tmp_path: Path, monkeypatch) -> None:
    path, known, read = tmp_path / "a.pt", KnownPlaces(), counted(monkeypatch)
    torch.save({"state_dict": STATE}, path)
    first, again = known.open(path, None), known.open(path, None)
    assert read == [path]
    for opened in (first, again):
        assert same(opened)
        assert (opened.tied, opened.name, opened.files) == ({"tied": "b"}, str(path), (path,))
        assert opened.notes == ["took its entry state_dict"]
    assert same(known.open(path, "state_dict"))
    assert read == [path] * 2  # another entry may be meant
    other = {k: v + 1 for k, v in STATE.items() if k != "tied"}
    other["tied"] = other["b"]
    size = path.stat().st_size
    torch.save({"state_dict": other}, path)
    assert path.stat().st_size == size  # only the time of change differs
    assert same(known.open(path, None), other)
    assert read == [path] * 3


def test_the_places_of_the_last_files_are_kept(tmp_path: Path, monkeypatch) -> None:
    known, read = KnownPlaces(limit=2), counted(monkeypatch)
    paths = [tmp_path / f"{name}.pt" for name in "abc"]
    for path in paths:
        torch.save(STATE, path)
        known.open(path, None)
    for path in (paths[1], paths[2], paths[0]):
        assert same(known.open(path, None))
    assert read == [*paths, paths[0]]


def test_a_file_without_a_memory_map_is_read_again(tmp_path: Path, monkeypatch) -> None:
    """torch before 1.6 wrote no zip: its tensors are in memory, which is not kept."""
    path, known, read = tmp_path / "old.pt", KnownPlaces(), counted(monkeypatch)
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    for _ in range(2):
        assert same(known.open(path, None))
    assert read == [path] * 2


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_every_pickle_protocol_is_read_as_it_was_saved(tmp_path: Path, protocol: int) -> None:
    linear = nn.Linear(3, 2)
    state = {**STATE, **linear.state_dict(), "float8": torch.ones(3).to(torch.float8_e5m2), "view": torch.eye(3)[1:].T}
    content = {
        "state_dict": state,
        "args": argparse.Namespace(lr=0.1),
        "epoch": 2**40,
        "done": True,
        "raw": b"\x00\xff",
    }
    torch.save(content, tmp_path / "a.pt", pickle_protocol=protocol)
    opened = open_checkpoint(tmp_path / "a.pt")
    assert all(torch.equal(opened[k].float(), v.float()) and opened[k].dtype == v.dtype for k, v in state.items())
    assert opened.tied == {"tied": "b"}
    torch.save({"w": nn.Parameter(torch.ones(2))}, tmp_path / "b.pt", pickle_protocol=protocol)
    assert open_checkpoint(tmp_path / "b.pt")["w"].tolist() == [1, 1]


@pytest.mark.parametrize("protocol", [1, 2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_any_protocol_is_refused_and_not_run(tmp_path: Path, protocol: int, zipped: bool, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, ("pwned",)

    content = {"w": torch.ones(2), "done": True, "evil": Evil()}
    torch.save(content, "a.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"a\.pt ") as error:
        open_checkpoint("a.pt")
    assert not Path("pwned").exists()
    assert "mkdir" in str(error.value) or not zipped


def test_a_file_of_old_pytorch_with_another_protocol_says_so(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt", pickle_protocol=4, _use_new_zipfile_serialization=False)
    with pytest.raises(
        ValueError, match=r"a\.pt was saved before torch 1\.6 with pickle protocol 4, not supported here"
    ):
        open_checkpoint(tmp_path / "a.pt")


@pytest.mark.filterwarnings("ignore")  # of torch.jit: it is old, and so are OpenAI's archives
def test_a_torchscript_archive_gives_its_models_state(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).half().eval()
    torch.jit.script(model).save(str(tmp_path / "a.pt"))
    opened = open_checkpoint(tmp_path / "a.pt")
    assert same(opened, model.state_dict())
    assert opened.notes == ["took its entry TorchScript (its code was not run)"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("unable to mmap 32212254808 bytes from file <big.pt>: Cannot allocate memory (12)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:128] . DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("unable to open file <a.pt> in read-only mode: Too many open files (24)"),
    ],
)
def test_short_memory_is_not_called_damage(tmp_path: Path, monkeypatch, error: Exception) -> None:
    def short(*_: object, **__: object) -> None:
        raise error

    torch.save(STATE, tmp_path / "a.pt")
    monkeypatch.setattr(torch, "load", short)
    monkeypatch.setattr(torch.serialization, "_load", short)  # of the map that zipped.py makes then
    with pytest.raises(ValueError, match=r"a\.pt cannot be read: memory or open files are at their limit") as found:
        open_checkpoint(tmp_path / "a.pt")
    assert not any(word in str(found.value) for word in ("damaged", "truncated", "delete", "download"))


def test_protocol_0_is_told_as_such(tmp_path: Path) -> None:
    """torch.save writes it, and torch.load of any kind fails: its storages are named by a text."""
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt", pickle_protocol=0)
    with pytest.raises(ValueError, match=r"a\.pt was saved with pickle protocol 0, .* save it again without"):
        open_checkpoint(tmp_path / "a.pt")
