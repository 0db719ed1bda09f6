"""A file that torch.load may not map is read through our own map, with the same tensors."""

from pathlib import Path

import pytest
import torch

from modelsoups.checkpoints.formats import open_checkpoint
from modelsoups.checkpoints.tensors import InFile
from modelsoups.checkpoints.zipped import load_zipped


def test_files_larger_than_memory_are_read_through_a_read_only_map(tmp_path: Path, monkeypatch) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    state = {"w": base, "half": base.half(), "turned": base.t(), "part": base[1:3], "count": torch.tensor(7)}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "a.pt")

    def refused(*args, **more):
        raise RuntimeError("unable to mmap 32212254808 bytes from file <a.pt>: Cannot allocate memory (12)")

    monkeypatch.setattr(torch.UntypedStorage, "from_file", refused)
    opened = open_checkpoint(tmp_path / "a.pt")
    assert list(opened) == list(state)
    assert all(torch.equal(opened[key], tensor) for key, tensor in state.items())
    assert {key for key, entry in opened.entries.items() if isinstance(entry, InFile)} == state.keys() - {"turned"}


def test_objects_that_can_run_code_are_refused_there_too(tmp_path: Path, monkeypatch) -> None:
    torch.save({"w": torch.ones(3), "odd": Path}, tmp_path / "a.pt")

    def refused(*args, **more):
        raise RuntimeError("unable to mmap")

    monkeypatch.setattr(torch.UntypedStorage, "from_file", refused)
    with pytest.raises(Exception, match="pathlib"):
        load_zipped(tmp_path / "a.pt")
