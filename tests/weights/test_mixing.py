"""Mixing files: the bits of mixing in memory, aligned output, bounded memory, and files cut off meanwhile."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from checkpoint_files import bits, files, state
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from modelsoups import soup
from modelsoups.checkpoints import pytorch
from modelsoups.weights import mixing
from modelsoups.weights.fast import blocks
from modelsoups.weights.state_dicts import mix


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-3, 3), min_size=1, max_size=5),
    st.sampled_from([".safetensors", ".pt"]),
    st.sampled_from([1, 7, 64, 2**17]),
)
def test_a_streamed_mix_has_the_bits_of_one_in_memory(tmp_path_factory, row, suffix, chunk) -> None:
    folder = tmp_path_factory.mktemp("mix")
    sources = soup.library.open_all(files(folder, len(row), suffix))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", chunk)
        patch.setattr(blocks, "PIECE", 3 * chunk)
        mixing.mix_to_file(sources, {"*": row}, folder / "out.safetensors")
    expected = mix([state(n) for n in range(len(row))], {"*": row})
    assert bits(load_file(folder / "out.safetensors")) == bits(expected)


def test_a_file_cut_off_while_it_is_mixed_is_named(tmp_path: Path) -> None:
    """Its addresses would lie beyond its end."""
    paths = [tmp_path / "0.safetensors", tmp_path / "1.safetensors"]
    for path in paths:
        save_file({"w": torch.ones(70)}, path)
    checkpoints = soup.library.open_all(paths)
    with open(paths[1], "r+b") as file:
        file.truncate(100)
    with pytest.raises(ValueError, match=r"1\.safetensors ends too early"):
        mixing.mix_to_file(checkpoints, {"*": [0.5, 0.5]}, tmp_path / "out.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.safetensors", "1.safetensors"]


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("change", ["content", "size"])
def test_a_file_that_changes_in_place_is_named_and_never_mixed(tmp_path: Path, suffix: str, change: str) -> None:
    paths = files(tmp_path, 2, suffix)
    os.utime(paths[1], ns=(1, 1))
    checkpoints = soup.library.open_all(paths)

    def facts(digests: tuple[str, ...]) -> dict[str, str]:
        if mixing.digest.UNKNOWN in digests:  # the checkpoints have been opened, the pass has not begun
            with open(paths[1], "ab" if change == "size" else "r+b") as file:
                file.seek(-8, os.SEEK_END)
                file.write(b"12345678")
        return {}

    with pytest.raises(ValueError, match=rf"1\{suffix} was changed while it was being read"):
        mixing.mix_to_file(checkpoints, {"*": [0.5, 0.5]}, tmp_path / "out.safetensors", facts)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"0{suffix}", f"1{suffix}"]


def test_tensors_of_another_stride_are_watched_too(tmp_path: Path) -> None:
    """They stay in torch's own map: a channels-last convolution, for example."""
    paths = [tmp_path / "0.pt", tmp_path / "1.pt"]
    for path in paths:
        torch.save({"w": torch.ones(7, 10).t()}, path)
    os.utime(paths[1], ns=(1, 1))
    checkpoints = soup.library.open_all(paths)
    content = paths[1].read_bytes()
    with open(paths[1], "r+b") as file:
        file.write(content)
    with pytest.raises(ValueError, match=r"1\.pt was changed while it was being read"):
        mixing.mix_to_file(checkpoints, {"*": [0.5, 0.5]}, tmp_path / "out.safetensors")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_changes_while_it_is_opened_is_named(tmp_path: Path, monkeypatch, zipped: bool) -> None:
    torch.save({"w": torch.ones(7)}, tmp_path / "0.pt", _use_new_zipfile_serialization=zipped)
    loaded = pytorch.read_pickle
    monkeypatch.setattr(pytorch, "read_pickle", lambda path: (loaded(path), os.utime(path, (1, 1)))[0])
    with pytest.raises(ValueError, match=r"0\.pt was changed while it was being read"):
        soup.library.open_all([tmp_path / "0.pt"])


def test_a_change_whose_time_is_put_back_is_found_by_the_digest(tmp_path: Path, monkeypatch) -> None:
    """The first block is overwritten once it has been read; a mode that changes does no harm."""
    paths = [tmp_path / "0.safetensors", tmp_path / "1.safetensors"]
    for path in paths:
        save_file({"w": torch.ones(70)}, path)
    monkeypatch.setattr(blocks, "BLOCK", 7)
    monkeypatch.setattr(blocks, "PIECE", 7)
    written = mixing._write

    def overwrite(*args) -> None:
        stat = paths[0].stat()
        with open(paths[0], "r+b") as file:
            file.seek(-280, os.SEEK_END)
            file.write(bytes(280))
        os.utime(paths[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
        written(*args)

    paths[1].chmod(0o600)
    monkeypatch.setattr(mixing, "_write", lambda *args: (paths[1].chmod(0o644), written(*args)))
    mixing.mix_to_file(soup.library.open_all(paths), {"*": [0.5, 0.5]}, tmp_path / "out.safetensors")
    assert load_file(tmp_path / "out.safetensors")["w"].tolist() == [1.0] * 70
    monkeypatch.setattr(mixing, "_write", overwrite)
    with pytest.raises(ValueError, match=r"0\.safetensors was changed while it was being read"):
        mixing.mix_to_file(soup.library.open_all(paths), {"*": [0.5, 0.5]}, tmp_path / "torn.safetensors")
    assert not (tmp_path / "torn.safetensors").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse or copy sparse files")
def test_a_file_larger_than_memory_is_opened_and_read(tmp_path: Path) -> None:
    """A terabyte of zeros that takes no room on the disk; a map that may be written would be refused."""
    count = 2**38
    header = json.dumps({"w": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}).encode()
    with open(tmp_path / "a.safetensors", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 4 * count)
    entry = soup.library.open_all([tmp_path / "a.safetensors"])[0].entries["w"]
    assert not entry.block(count - 5, count).any()


def test_a_disk_too_small_for_the_soup_is_said_before_anything_is_written(tmp_path: Path, monkeypatch) -> None:
    sources = soup.library.open_all(files(tmp_path, 2))
    usage = type("Usage", (), {"total": 10**6, "free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match=r"out\.safetensors: the file takes 0\.0 MB, but only 0\.0 MB are free"):
        mixing.mix_to_file(sources, {"*": [0.5, 0.5]}, tmp_path / "new" / "out.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.safetensors", "1.safetensors"]


@pytest.mark.parametrize("kind", ["transposed", "views", "strided", "scalar"])
def test_pytorch_tensors_of_every_layout(tmp_path: Path, kind: str) -> None:
    base = torch.randn(70, 33)
    tensors = {
        "transposed": {"w": base.t()},
        "views": {"a": base[:20], "b": base[10:40], "c": base},
        "strided": {"w": base[::2, ::3]},
        "scalar": {"w": torch.tensor(2.5), "none": torch.zeros(0, 3), "flag": torch.tensor([True, False])},
    }[kind]
    other = {k: v + 1 if v.is_floating_point() else v for k, v in tensors.items()}
    torch.save(tensors, tmp_path / "a.pt")
    torch.save(other, tmp_path / "b.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", 25)
        patch.setattr(blocks, "PIECE", 50)
        soup.mix(soup.uniform([tmp_path / "a.pt", tmp_path / "b.pt"]), tmp_path / "soup.safetensors")
        assert bits(soup.mixed(soup.uniform([tmp_path / "a.pt", tmp_path / "b.pt"]))) == bits(
            mix([tensors, other], {"*": [0.5, 0.5]})
        )
    expected = mix([tensors, other], {"*": [0.5, 0.5]})
    assert bits(soup.load(tmp_path / "soup.safetensors")) == bits(expected)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux begins to write on advice")
def test_every_portion_of_the_output_is_sent_to_the_disk_once(tmp_path: Path, monkeypatch) -> None:
    advised: list[tuple[int, int]] = []
    monkeypatch.setattr(mixing, "PORTION", 64)
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, start, size, advice: advised.append((start, start + size)))
    states = [{f"w{n}": torch.full((37 + n,), float(s)) for n in range(9)} for s in (1, 2)]
    soup.mix(soup.uniform(states), tmp_path / "out.safetensors", states)
    content = (tmp_path / "out.safetensors").read_bytes()
    starts, stops = zip(*sorted(advised), strict=True)
    assert starts[0] <= 8 + int.from_bytes(content[:8], "little")  # the header comes last
    assert starts[1:] == stops[:-1]
    assert stops[-1] == len(content) // 64 * 64


def test_numbers_that_the_file_does_not_align(tmp_path: Path) -> None:
    """A header may put float32 at any byte; only ours are where compiled code reads them."""
    rows = [torch.randn(300), torch.randn(300)]
    for n, row in enumerate(rows):
        header = json.dumps(
            {
                "flags": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
                "w": {"dtype": "F32", "shape": [300], "data_offsets": [3, 1203]},
            }
        ).encode()
        content = len(header).to_bytes(8, "little") + header + b"abc" + row.numpy().tobytes()
        (tmp_path / f"{n}.safetensors").write_bytes(content)
    paths = [tmp_path / "0.safetensors", tmp_path / "1.safetensors"]
    soup.mix(soup.uniform(paths), tmp_path / "soup.safetensors")
    made = load_file(tmp_path / "soup.safetensors")
    assert torch.equal(made["w"], ((rows[0].double() + rows[1].double()) / 2).float())
    assert bytes(made["flags"].tolist()) == b"abc"


def test_tensors_of_whole_pages_lie_on_pages(tmp_path: Path) -> None:
    state = {
        "bias": torch.ones(3),
        "half": torch.ones(2048).half(),
        "w": torch.ones(32, 64),
        "double": torch.ones(2).double(),
    }
    both = [state, {k: v.clone() for k, v in state.items()}]
    soup.mix(soup.uniform(both), tmp_path / "soup.safetensors", both)
    content = (tmp_path / "soup.safetensors").read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:length])
    at = {k: length + v["data_offsets"][0] for k, v in header.items() if k != "__metadata__"}
    assert [at[k] % 4096 for k in ("half", "w")] == [0, 0]
    assert [at[k] % 8 for k in ("double", "bias")] == [0, 0]
    assert bits(load_file(tmp_path / "soup.safetensors")) == bits(state)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells and resets a process's peak")
def test_memory_does_not_grow_with_the_number_of_checkpoints(tmp_path: Path, monkeypatch) -> None:
    """Twelve files of 16 MB; the pages of the files that the process holds are counted."""
    paths = [tmp_path / f"{n}.safetensors" for n in range(12)]
    for n, path in enumerate(paths):
        save_file({"w": torch.full((2**22,), float(n))}, path)
    monkeypatch.setattr(blocks, "WINDOW", 2**24)
    soup.mix(soup.uniform(paths[:2]), tmp_path / "two.safetensors")  # what is imported and compiled
    before = of_status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    soup.mix(soup.uniform(paths), tmp_path / "soup.safetensors")
    assert of_status("VmHWM") - before < 60
    assert load_file(tmp_path / "soup.safetensors")["w"].unique().tolist() == [5.5]


def of_status(key: str) -> float:
    """A line of this process's status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("__metadata__", "has a name that safetensors reserves"),
        ("a\ud800", "has characters that are not valid Unicode"),
    ],
)
def test_names_that_no_safetensors_file_can_hold_are_refused(tmp_path: Path, name: str, told: str) -> None:
    for n in range(2):
        torch.save({name: torch.ones(2), "w": torch.full((2,), float(n))}, tmp_path / f"{n}.pt")
    with pytest.raises(ValueError, match=told):
        soup.mix(soup.uniform([tmp_path / "0.pt", tmp_path / "1.pt"]), tmp_path / "out.safetensors")
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("name", ["format", "modelsoups"])
def test_ties_named_as_facts_are_written_as_tensors(tmp_path: Path, name: str) -> None:
    for n in range(2):
        tensor = torch.full((2,), float(n))
        torch.save({"w": tensor, name: tensor, "b.c": tensor}, tmp_path / f"{n}.pt")
    soup.mix(soup.uniform([tmp_path / "0.pt", tmp_path / "1.pt"]), tmp_path / "out.safetensors")
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        facts = file.metadata()
    assert (facts["format"], json.loads(facts["modelsoups"])["method"]) == ("pt", "uniform")
    loaded = soup.load(tmp_path / "out.safetensors")
    assert {key: tensor.tolist() for key, tensor in loaded.items()} == {key: [0.5, 0.5] for key in ("w", name, "b.c")}


def test_what_safetensors_cannot_open_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = files(tmp_path, 2)
    monkeypatch.setattr(mixing, "METADATA", "__metadata")
    with pytest.raises(ValueError, match=r"out\.safetensors: safetensors cannot open what was written"):
        soup.mix(soup.uniform(paths), tmp_path / "out.safetensors")
    assert not list(tmp_path.glob("*out*"))
