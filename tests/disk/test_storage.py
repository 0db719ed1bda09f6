"""Nothing partial is ever taken for complete."""

import errno
import json
import os
import shutil
import subprocess
from collections import namedtuple

import pytest
import torch

from modelsoups.disk import manifests, provenance, storage


def test_atomic_replaces_only_on_success(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    storage.write_text(path, "old")

    def break_off():
        with storage.atomic(path) as tmp:
            tmp.write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        break_off()
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_full_disk_names_the_file_and_keeps_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    storage.write_json(path, 1)

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"could not write .*file\.json: No space left on device"):
        storage.write_json(path, 2)
    assert storage.read_json(path) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_weights_that_cannot_be_written_name_the_file(tmp_path, monkeypatch):
    import safetensors.torch
    import torch
    from safetensors import SafetensorError

    def full(*args, **more):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match=r"could not write .*w\.safetensors: .*No space left"):
        storage.save_weights(tmp_path / "w.safetensors", {"a": torch.zeros(1)})
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_counts_only_while_its_files_are_whole_and_its_inputs_the_same(tmp_path):
    file = tmp_path / "model.bin"
    file.write_bytes(b"12345678")
    assert manifests.complete(tmp_path, {"a": 1}) is None
    manifests.finish(tmp_path, {"a": 1, "t": (1, 2)}, [file], sha256="x")
    assert manifests.complete(tmp_path, {"a": 1, "t": (1, 2)})["sha256"] == "x"
    assert manifests.complete(tmp_path, {"a": 2, "t": (1, 2)}) is None
    file.write_bytes(b"1234")
    assert manifests.manifest_of(tmp_path) is None
    file.unlink()
    assert manifests.manifest_of(tmp_path) is None


def test_damaged_json_is_named(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"x\.json is not valid JSON"):
        storage.read_json(path)
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n{"b"')
    with pytest.raises(ValueError, match=r"x\.jsonl line 2"):
        storage.read_jsonl(tmp_path / "x.jsonl")


def test_provenance_says_what_made_a_result():
    made = provenance.record()
    assert json.dumps(made)
    assert {"modelsoups", "commit", "command", "packages", "machine", "time"} <= set(made)
    assert made["packages"]["torch"]


def test_code_is_named_by_what_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    (tmp_path / "core" / "deep").mkdir(parents=True)
    file = tmp_path / "core" / "deep" / "sums.py"

    def named(text):
        file.write_text(text)
        return provenance.code_fingerprint.__wrapped__("core")

    assert named("x = 1 + 2  # three\n") == named("# a sum\nx = (1 + 2)\n") != named("x = 1 + 3\n")
    with pytest.raises(FileNotFoundError, match="cores"):
        provenance.code_fingerprint.__wrapped__("cores")


def test_modes_follow_the_umask_also_where_a_library_makes_its_own_file(tmp_path):
    """safetensors writes a file of mode 600 and renames it; a group that shares a run must read it."""
    before = os.umask(0o027)
    try:
        storage.save_weights(tmp_path / "w.safetensors", {"a": torch.zeros(1)})
        storage.write_text(tmp_path / "a.txt", "a")
        with storage.new_folder(tmp_path / "folder") as tmp:
            storage.write_text(tmp / "a.txt", "a")
    finally:
        os.umask(before)
    names = ("w.safetensors", "a.txt", "folder/a.txt", "folder")
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in names] == [0o640, 0o640, 0o640, 0o750]


def test_a_new_folder_is_synced_with_its_files_and_its_parent(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), fsync(fd)))
    with storage.new_folder(tmp_path / "new") as tmp:
        (tmp / "deep").mkdir()
        (tmp / "deep" / "copied.json").write_text("{}")
    made = [tmp_path / "new", tmp_path / "new" / "deep", tmp_path / "new" / "deep" / "copied.json", tmp_path]
    assert {path.stat().st_ino for path in made} == set(synced)
    assert synced[-1] == tmp_path.stat().st_ino
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_folders_above_a_new_file_are_synced(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), fsync(fd)))
    storage.write_text(tmp_path / "one" / "two" / "a.txt", "x")
    folders = [tmp_path / "one" / "two", tmp_path / "one", tmp_path]  # each holds the name of the next
    assert {path.stat().st_ino for path in folders} <= set(synced)


def test_a_folder_that_another_process_made_meanwhile_is_not_replaced(tmp_path):
    def made_twice():
        with storage.new_folder(tmp_path / "new") as tmp:
            (tmp / "mine").write_text("mine")
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / "theirs").write_text("theirs")

    with pytest.raises(OSError, match=r"could not write .*new: .*not empty"):
        made_twice()
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == ["new", "new/theirs"]


def test_errors_within_a_new_folder_have_its_final_name(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    what = r"^\[Errno 28\] could not write \S*/new/a\.txt: No space left on device$"
    with pytest.raises(OSError, match=what), storage.new_folder(tmp_path / "new") as tmp:
        storage.write_text(tmp / "a.txt", "a")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_too_small_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 0, 5 * 10**6))
    storage.check_space(tmp_path / "deep" / "soup", 5 * 10**6)
    with pytest.raises(OSError, match=r"soup: the file takes 6\.0 MB, but only 5\.0 MB are free; free disk space"):
        storage.check_space(tmp_path / "deep" / "soup", 6 * 10**6)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, 0))  # it does not tell
    storage.check_space(tmp_path / "soup", 6 * 10**6)


@pytest.mark.parametrize("content", ["null", "[]", "{}", '"text"', '{"inputs": 1}'])
def test_other_json_than_expected_is_named_and_nobody_is_told_to_delete_it(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(
        ValueError, match=r"manifest\.json contains other JSON than an object with the keys inputs, files"
    ) as error:
        manifests.manifest_of(tmp_path)
    assert "move it away" in str(error.value)
    assert "delete" not in str(error.value)


def test_json_of_too_many_brackets_is_named(tmp_path):
    (tmp_path / "deep").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="deep is not valid JSON"):
        storage.read_json(tmp_path / "deep")
    with pytest.raises(ValueError, match="deep line 1 is not valid JSON"):
        storage.read_jsonl(tmp_path / "deep")


def test_a_full_disk_is_an_error_before_a_memory_map_is_written(tmp_path):
    """Writing to a page of the map without a block on the disk would be a bus error."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        path = tmp_path / "pixels.npy"
        path.touch()
        os.truncate(path, 2**20)
        with pytest.raises(OSError, match=r"could not write .*pixels\.npy: No space left on device") as error:
            storage.allocate(path)
        assert error.value.errno == errno.ENOSPC
        os.truncate(path, 2**16)
        storage.allocate(path)
        assert path.stat().st_blocks * 512 == 2**16
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_of_two_processes_that_make_one_folder_the_second_may_keep_the_firsts(tmp_path):
    with storage.new_folder(tmp_path / "a", keep=True) as tmp:
        (tmp_path / "a").mkdir()
        storage.write_text(tmp / "mine", "")
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]
