"""Temporary files are one process's alone, and those of dead processes are removed by the next one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modelsoups.disk import storage, temporary

KILLED = """
import os, signal, sys
from pathlib import Path
from modelsoups.disk import storage
with storage.atomic(Path(sys.argv[1]) / "a.bin"), storage.new_folder(Path(sys.argv[1]) / "folder") as tmp:
    (tmp / "b").write_text("b")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    storage.write_text(tmp_path / "another.txt", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["another.txt"]


IN_SAFETENSORS = """
import os, signal, sys
import safetensors.torch
from pathlib import Path
from modelsoups.disk import storage
def killed(state, path, metadata):
    Path(path).with_name(".tmpAbCdEf").write_bytes(b"half")  # as safetensors does before it renames
    os.kill(os.getpid(), signal.SIGKILL)
safetensors.torch.save_file = killed
storage.save_weights(Path(sys.argv[1]) / "w.safetensors", {})
"""


def test_the_temporary_file_of_safetensors_is_removed_too(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", IN_SAFETENSORS, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.rglob("*"))) == 3
    storage.write_text(tmp_path / "another.txt", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["another.txt"]


def test_what_a_living_process_or_someone_else_has_is_left(tmp_path: Path, monkeypatch) -> None:
    """Of another machine or container only what has not changed for a day is removed."""
    mine = temporary.beside(tmp_path / "x")
    with monkeypatch.context() as patch:
        patch.setattr(temporary, "place", lambda: "00000000")
        new, old = temporary.beside(tmp_path / "x"), temporary.beside(tmp_path / "x")
    other = tmp_path / ".x.1234.tmp"
    for path in (mine, new, old, other):
        path.write_text("x")
    os.utime(old, (0, 0))
    temporary.tidy(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([mine, new, other])


def test_of_another_user_only_what_is_old_is_removed(tmp_path: Path, monkeypatch) -> None:
    """Where /proc hides the processes of other users (hidepid), theirs seem to be dead."""
    mine, theirs, old = (temporary.beside(tmp_path / "x") for _ in range(3))
    for path in (mine, theirs, old):
        path.write_text("x")
    os.utime(old, (0, 0))
    temporary.place()
    monkeypatch.setattr(temporary, "began", lambda pid: None)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    temporary.tidy(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([mine, theirs])
    monkeypatch.setattr(os, "geteuid", lambda: user)
    temporary.tidy(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_is_left_to_its_owner(tmp_path: Path, monkeypatch) -> None:
    names = iter(["aaaaaaaa", "aaaaaaaa", "bbbbbbbb"])
    monkeypatch.setattr(temporary.secrets, "token_hex", lambda count: next(names))
    taken = temporary.beside(tmp_path / "a.txt")
    taken.write_text("of another")
    storage.write_text(tmp_path / "a.txt", "mine")
    assert (taken.read_text(), (tmp_path / "a.txt").read_text()) == ("of another", "mine")


def test_two_processes_of_one_number_write_one_whole_file(tmp_path: Path, monkeypatch) -> None:
    """Two containers on one folder: both are process 7."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    path = tmp_path / "a.txt"
    with storage.atomic(path) as first, storage.atomic(path) as second:
        first.write_text("first")
        second.write_text("second")
        with pytest.raises(FileExistsError):
            storage._create(first)
    assert path.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("name", ["n" * 255, "\u00e9" * 127 + "n", os.fsdecode(b"\xe8" * 255)])
def test_a_name_as_long_as_the_system_allows_is_written(tmp_path: Path, name: str) -> None:
    assert len(os.fsencode(name)) == 255
    storage.write_text(tmp_path / name, "x")
    assert os.listdir(tmp_path) == [name]
