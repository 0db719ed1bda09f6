"""The soup of distributed checkpoints is one that torch.distributed.checkpoint.load reads, bit for bit."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from distributed import save, save_in_shards
from safetensors.torch import load_file
from torch import Tensor

from modelsoups import soup
from modelsoups.disk import storage


def weights(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    one = {
        "a.weight": torch.randn(5, 3),
        "half": torch.randn(4).bfloat16(),
        "scalar": torch.tensor(0.5),
        "n": torch.tensor(3),
    }
    return {**one, "turned": torch.randn(4, 6).t(), "empty": torch.zeros(0, 2), "tied": one["a.weight"]}


def loaded(folder: Path, around=lambda state: {"model": state}) -> dict[str, Tensor]:
    state = {name: torch.full_like(tensor, 99) for name, tensor in weights(0).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there is one process only
        dcp.load(around(state), checkpoint_id=folder)
    return state


@pytest.mark.parametrize(
    "around",
    [lambda state: {"model": state}, lambda state: state, lambda state: {"app": {"model": state}}],
    ids=["nested", "plain", "deep"],
)
def test_two_copies_are_the_same_for_torch(tmp_path: Path, around) -> None:
    save({**around(weights(0)), "optim": {"state": torch.ones(3)}}, tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    soup.mix(soup.uniform([tmp_path / "a", tmp_path / "b"]), tmp_path / "soup")
    expected, found = loaded(tmp_path / "a", around), loaded(tmp_path / "soup", around)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert sorted(p.name for p in (tmp_path / "soup").iterdir()) == [
        ".metadata",
        "README.md",
        "__0_0.distcp",
        "soup.json",
    ]
    facts = json.loads((tmp_path / "soup" / "soup.json").read_text())["modelsoups"]
    assert facts["ingredients"] == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert all(digest.startswith("xxh3_128:") for digest in facts["hashes"])


def test_a_file_and_a_folder_hold_the_same_soup(tmp_path: Path) -> None:
    tensors = [torch.randn(6, 5) for _ in range(2)]
    save_in_shards(tensors[0], [((0, 0), (6, 2)), ((0, 2), (6, 3))], tmp_path / "a")
    save_in_shards(tensors[1], [((0, 0), (4, 5)), ((4, 0), (2, 5))], tmp_path / "b")
    chosen = soup.uniform([tmp_path / "a", tmp_path / "b"])
    soup.mix(chosen, tmp_path / "soup.safetensors")
    soup.mix(chosen, tmp_path / "soup")
    mean = ((tensors[0].double() + tensors[1].double()) / 2).float()
    assert torch.equal(load_file(tmp_path / "soup.safetensors")["w"], mean)
    assert torch.equal(soup.load(tmp_path / "soup")["w"], mean)


def test_a_folder_of_the_trainer(tmp_path: Path) -> None:
    for step in (500, 1000):
        folder = tmp_path / f"checkpoint-{step}"
        save({"model": weights(step)}, folder / "pytorch_model_fsdp_0")
        save({"optimizer": {"x": torch.ones(2)}}, folder / "optimizer_0")
        (folder / "config.json").write_text("{}")
        (folder / "trainer_state.json").write_text("{}")
    folders = [tmp_path / "checkpoint-500", tmp_path / "checkpoint-1000"]
    notes = soup.mix(soup.uniform(folders), tmp_path / "soup")
    out = tmp_path / "soup"
    assert sorted(p.name for p in out.iterdir()) == ["README.md", "config.json", "pytorch_model_fsdp_0"]
    assert any(note.endswith("): optimizer_0/, trainer_state.json") for note in notes)
    mean = (weights(500)["a.weight"].double() + weights(1000)["a.weight"].double()) / 2
    assert torch.equal(loaded(out / "pytorch_model_fsdp_0")["a.weight"], mean.float())


def test_nothing_is_left_of_a_mix_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        save({"model": weights(ord(name))}, tmp_path / name)
    chosen = soup.uniform([tmp_path / "a", tmp_path / "b"])
    monkeypatch.setattr(dcp, "save", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        soup.mix(chosen, tmp_path / "soup")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_disk_without_room_for_it_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        save({"model": {"w": torch.randn(4096)}}, tmp_path / name)  # 16 KB
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 25_000))
    with pytest.raises(OSError, match="free disk space"):
        soup.mix(soup.uniform([tmp_path / "a", tmp_path / "b"]), tmp_path / "soup")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]
