"""PyTorch files: the places of their tensors are kept while the file does not change."""

from pathlib import Path

import torch

from modelsoups.checkpoints import pytorch
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
        assert opened.notes == ["weights read from entry state_dict"]
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
