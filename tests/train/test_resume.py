"""Checkpoints for resuming: whole or refused; metrics cut to them."""

import errno

import pytest
import torch

from modelsoups.train import resume


def state():
    tensors = {"weight": torch.arange(3000.0)}
    return {"made_from": "x", "step": 3, "seconds": 1.5, "model": tensors, "optimizer": {}}


def test_a_checkpoint_reads_back_as_it_was_written(tmp_path):
    resume.save(tmp_path / "c.pt", state())
    back = resume.load(tmp_path / "c.pt")
    assert torch.equal(back["model"]["weight"], state()["model"]["weight"])
    assert back | {"model": 0} == state() | {"model": 0}
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_what_is_not_a_whole_checkpoint_is_not_loaded(tmp_path):
    path = tmp_path / "c.pt"
    resume.save(path, state())
    whole = path.read_bytes()
    middle = whole.index(torch.arange(100.0, 200.0).numpy().tobytes())
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for damaged in (b"", b"hello", whole[:-1], whole[: len(whole) // 2], flipped, b"\x80\x02}q\x00."):
        path.write_bytes(damaged)
        assert resume.load(path) is None
    torch.save({"model": {}}, path)
    assert resume.load(path) is None
    torch.save([1], path)
    assert resume.load(path) is None


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        ('{"step": 1}\n{"step": 2}\n{"step": 3}\n', '{"step": 1}\n{"step": 2}\n'),
        ('{"step": 1}\n{"st', '{"step": 1}\n'),
        ('{"step": 1}\n{"step": 2}', '{"step": 1}\n'),  # the next line would be glued to it
        ("[]\n", ""),
        ("", ""),
    ],
)
def test_metrics_are_cut_to_the_step_of_the_checkpoint(tmp_path, content, kept):
    metrics = tmp_path / "metrics.jsonl"
    resume.cut(metrics, 2)
    assert not metrics.exists()
    metrics.write_text(content)
    resume.cut(metrics, 2)
    assert metrics.read_text() == kept


def test_a_full_disk_names_the_metrics(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(OSError, match=r"could not write .*metrics\.jsonl: No space left on device"):
        resume.log(tmp_path / "metrics.jsonl", {"step": 1})


def test_the_checkpoint_before_is_kept_and_found_when_the_newest_is_damaged(tmp_path):
    assert resume.newest(tmp_path) == (None, [])
    for step in (1, 2, 3):
        resume.save(tmp_path / "checkpoint.pt", state() | {"step": step})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.prev.pt", "checkpoint.pt"]
    assert resume.newest(tmp_path) == ("checkpoint.pt", [])
    (tmp_path / "checkpoint.pt").write_bytes(b"x" * 5000)
    assert resume.newest(tmp_path) == ("checkpoint.prev.pt", ["checkpoint.pt"])
    assert resume.load(tmp_path / "checkpoint.prev.pt")["step"] == 2
    (tmp_path / "checkpoint.prev.pt").write_bytes(b"")
    assert resume.newest(tmp_path) == (None, ["checkpoint.pt", "checkpoint.prev.pt"])
    resume.remove(tmp_path)
    assert list(tmp_path.iterdir()) == []
