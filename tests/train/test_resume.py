"""Checkpoints for resuming: whole or refused, and written beside training; metrics cut to them."""

import threading
import time

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


def test_a_snapshot_does_not_follow_the_model():
    weight = torch.ones(2)
    state = {"step": 3, "model": {"w": weight}, "averages": {"ema": (1, {"w": weight})}, "layouts": ["1x1"]}
    kept = resume.snapshot(state)
    resume.copies_done(cuda=False)()
    weight.fill_(7.0)
    assert kept["model"]["w"].tolist() == kept["averages"]["ema"][1]["w"].tolist() == [1.0, 1.0]
    assert (kept["step"], kept["layouts"], kept["averages"]["ema"][0]) == (3, ["1x1"], 1)


def test_a_writer_does_one_job_at_a_time_and_all_of_them():
    done, gate = [], threading.Event()

    def first():
        gate.wait(10)
        done.append(1)

    with resume.Writer() as writer:
        writer.start(first)
        assert done == []  # and training goes on
        gate.set()
        writer.start(lambda: done.append(2))
    assert done == [1, 2]


def test_what_goes_wrong_in_a_writer_is_raised_once_and_never_lost():
    def broken():
        raise OSError("disk full")

    with resume.Writer() as writer:
        writer.start(broken)
        with pytest.raises(OSError, match="disk full"):
            writer.start(lambda: None)
    with pytest.raises(OSError, match="disk full"), resume.Writer() as writer:
        writer.start(broken)
    begun = time.monotonic()
    with pytest.raises(ZeroDivisionError), resume.Writer() as writer:  # the error that ended the loop is raised
        writer.start(broken) or 1 / 0
    assert time.monotonic() - begun < 5
