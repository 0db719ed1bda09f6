"""Distributed checkpoints are read as PyTorch reads them, without running code."""

import itertools
import os
import pickle
import re
import resource
import tracemalloc
import warnings
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from distributed import by_processes, save, save_in_shards
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelsoups.checkpoints.formats import open_checkpoint
from modelsoups.checkpoints.mapped import bytes_of


def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "layer.weight": torch.randn(5, 3),
        "layer.half": torch.randn(7).bfloat16(),
        "turned": torch.randn(6, 4).t(),
        "cut_out": torch.randn(9, 9)[2:5, 1:3],
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 4),
        "float8": torch.randn(4).to(torch.float8_e4m3fn),
    }


def same(found: Tensor, expected: Tensor) -> bool:
    described = found.dtype == expected.dtype and found.shape == expected.shape
    return described and bytes_of(found.contiguous()).tolist() == bytes_of(expected.contiguous()).tolist()


def refusal(folder: Path, key: str | None = None) -> str:
    with pytest.raises(ValueError, match=re.escape(str(folder))) as error:
        dict(open_checkpoint(folder, key))
    assert "\n" not in str(error.value)
    return str(error.value)


OPTIMIZER = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(5, 3)}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize(
    ("around", "notes"),
    [
        (lambda model: model, ["_extra_state left out: not tensors"]),
        (lambda model: {"model": model, "optim": OPTIMIZER, "step": 3}, ["took its entry model"]),
        (lambda model: {"app": {"model": model, "optimizer": OPTIMIZER}}, ["took its entry app.model"]),
        (  # torchtitan
            lambda model: {**model, "optimizer": {"state.x": torch.ones(2)}, "train_state": {"step": 1}},
            ["optimizer, train_state left out: not part of the model"],
        ),
        (lambda model: {"model": {f"module._orig_mod.{k}": v for k, v in model.items()}}, ["prefix module. removed"]),
    ],
)
def test_nested_as_people_save_them(tmp_path: Path, around, notes) -> None:
    expected = weights()
    save(around({**expected, "_extra_state": None}), tmp_path)
    found = open_checkpoint(tmp_path)
    assert [note for note in notes if note not in found.notes] == []
    assert found.keys() == expected.keys()
    assert [name for name in expected if not same(found[name], expected[name])] == []
    assert {path.name for path in found.files} == {".metadata", "__0_0.distcp"}


def test_several_models_are_named_and_chosen(tmp_path: Path) -> None:
    save({"generator": {"w": torch.ones(2)}, "critic": {"w": torch.zeros(2)}}, tmp_path)
    assert "has the weights of several models: generator, critic" in refusal(tmp_path)
    assert open_checkpoint(tmp_path, "critic")["w"].tolist() == [0, 0]
    assert "no weights under actor" in refusal(tmp_path, "actor")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_blocks_of_shards_equal_those_of_the_tensor(data, tmp_path_factory) -> None:
    """Any grid of shards over one to three dimensions, in any order; any block."""
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float64, torch.int8]))
    cuts = [[0, *sorted(data.draw(st.sets(st.integers(1, n - 1), max_size=2)) if n > 1 else ()), n] for n in shape]
    boxes = [((), ())]
    for borders in cuts:
        pairs = list(itertools.pairwise(borders))
        boxes = [((*at, low), (*sizes, high - low)) for at, sizes in boxes for low, high in pairs]
    tensor = torch.arange(int(np.prod(shape))).reshape(shape).to(dtype)
    folder = tmp_path_factory.mktemp("shards")
    save_in_shards(tensor, data.draw(st.permutations(boxes)), folder)
    entry = open_checkpoint(folder).entries["w"]
    flat, size = bytes_of(tensor), dtype.itemsize
    start = data.draw(st.integers(0, tensor.numel()))
    stop = data.draw(st.integers(start, tensor.numel()))
    assert entry.block(start, stop).tolist() == flat[start * size : stop * size].tolist()
    assert same(entry.tensor(), tensor)


def test_fsdp_and_tensor_parallel_of_two_processes(tmp_path: Path) -> None:
    torch.manual_seed(1)
    wide = torch.randn(3, 7)

    def model() -> torch.nn.Module:
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(7, 13), torch.nn.LayerNorm(13), torch.nn.Linear(13, 5))

    def act() -> None:
        from torch.distributed.checkpoint.state_dict import get_model_state_dict
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
        from torch.distributed.tensor import Shard, distribute_tensor

        mesh, sharded = init_device_mesh("cpu", (2,)), model()
        fully_shard(sharded, mesh=mesh)
        dcp.save({"model": get_model_state_dict(sharded)}, checkpoint_id=tmp_path / "fsdp")
        dcp.save({"model": {"wide": distribute_tensor(wide, mesh, [Shard(1)])}}, checkpoint_id=tmp_path / "columns")

    by_processes(2, act)
    found = open_checkpoint(tmp_path / "fsdp")
    assert {path.name for path in found.files} == {".metadata", "__0_0.distcp", "__1_0.distcp"}
    assert len(found.entries["0.weight"].find()) == 2
    assert [name for name, value in model().state_dict().items() if not same(found[name], value)] == []
    assert same(open_checkpoint(tmp_path / "columns")["wide"], wide)


def test_a_block_takes_the_memory_of_a_block(tmp_path: Path) -> None:
    wide = torch.zeros(2048, 4096)  # 32 MB
    entry = open_checkpoint(
        save_in_shards(wide, [((0, 0), (2048, 1000)), ((0, 1000), (2048, 3096))], tmp_path)
    ).entries["w"]
    tracemalloc.start()
    try:
        for start in range(0, wide.numel(), 2**20):
            entry.block(start, start + 2**16)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


class Attack:
    def __reduce__(self):
        return os.system, ("touch attacked",)


def test_no_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(weights(), tmp_path / "a")
    with open("a/.metadata", "rb") as file:
        found = pickle.load(file)
    found.planner_data["attack"] = Attack()
    Path("a/.metadata").write_bytes(pickle.dumps(found))
    assert "posix.system" in refusal(Path("a"))
    save(weights(), tmp_path / "b")
    torch.save(Attack(), "bomb.pt")
    with open("b/.metadata", "rb") as file:
        found = pickle.load(file)
    info = found.storage_data[next(i for i in found.storage_data if i.fqn == "layer.weight")]
    info.offset, info.length = 0, Path("bomb.pt").stat().st_size
    Path("bomb.pt").rename("b/bomb.distcp")
    info.relative_path = "bomb.distcp"
    Path("b/.metadata").write_bytes(pickle.dumps(found))
    assert "tensor layer.weight contains Python objects (posix.system)" in refusal(Path("b"))
    assert not Path("attacked").exists()


def rewrite(folder: Path, change) -> None:
    with open(folder / ".metadata", "rb") as file:
        found = pickle.load(file)
    change(found)
    (folder / ".metadata").write_bytes(pickle.dumps(found))


def first_chunk(found):
    return next(iter(found.state_dict_metadata.values())).chunks[0]


def first_info(found):
    return next(iter(found.storage_data.values()))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: setattr(first_info(m), "relative_path", "../w.distcp"), "names a file in another folder"),
        (lambda m: setattr(first_info(m), "relative_path", "gone.distcp"), "the file gone.distcp is missing"),
        (lambda m: setattr(first_info(m), "offset", 10**9), "the file ends before one of its shards"),
        (lambda m: setattr(first_info(m), "offset", 3), "is truncated, damaged or not stored by torch.save"),
        (lambda m: setattr(first_info(m), "transform_descriptors", ["zstd"]), "through extensions (zstd)"),
        (lambda m: setattr(first_chunk(m), "offsets", torch.Size([1, 0])), "no file for its shard at (1, 0)"),
        (lambda m: setattr(first_chunk(m), "sizes", torch.Size([4, 3])), "do not cover its shape (5, 3)"),
        (lambda m: m.state_dict_metadata["model.w"].chunks.append(first_chunk(m)), "do not cover its shape (5, 3)"),
        (lambda m: m.planner_data.update({"model.w": ("x",) * 10**5}), "expected the dict keys of model.w"),
        (lambda m: m.planner_data.update({"model.w": ("model",)}), "has an entry twice, or nested in a tensor: model"),
        (
            lambda m: m.planner_data.update({"model.n": ("model", "w", "n")}),
            "has an entry twice, or nested in a tensor: model.w",
        ),
        (lambda m: m.storage_data.clear(), "has no file for its shard"),
        (lambda m: m.planner_data.update({"model.w": ("model", 1.5)}), "expected the dict keys of model.w"),
        (
            lambda m: setattr(m.state_dict_metadata["model.w"].properties, "dtype", torch.float16),
            "not (5, 3) torch.float16 as .metadata says",
        ),
    ],
)
def test_metadata_that_does_not_fit(tmp_path: Path, change, told) -> None:
    save({"model": {"w": torch.randn(5, 3), "n": torch.ones(2)}}, tmp_path)
    rewrite(tmp_path, change)
    assert told in refusal(tmp_path)


def test_what_is_cut_off_or_of_another_kind(tmp_path: Path) -> None:
    save({"model": {"layer.flat_param": torch.ones(4)}}, tmp_path / "flat")
    assert "FSDP's flat parameters" in refusal(tmp_path / "flat")
    whole = save({"model": {"w": torch.randn(500)}}, tmp_path / "cut")
    content = (whole / ".metadata").read_bytes()
    for size in (0, 1, 50, len(content) // 2, len(content) - 1):
        (whole / ".metadata").write_bytes(content[:size])
        assert "is not the metadata of a distributed checkpoint, or is truncated" in refusal(whole)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (whole / ".metadata").write_bytes(b"\x80\x04]r\xff\xff\xff\x00.")  # an entry of 16 million in the memo
    assert "expected Metadata" in refusal(whole)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KB
    (whole / ".metadata").write_bytes(content)
    os.truncate(whole / "__0_0.distcp", 1000)
    assert "__0_0.distcp: tensor w" in refusal(whole)
    os.truncate(whole / "__0_0.distcp", 0)
    assert "__0_0.distcp is empty" in refusal(whole)


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_damaged_bytes_are_refused_or_numbers(tmp_path: Path, name: str) -> None:
    path = save({"model": {"w": torch.randn(5, 3), "turned": torch.randn(3, 4).t()}, "step": 1}, tmp_path) / name
    content, random = path.read_bytes(), Random(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(content)
        for _ in range(random.choice([1, 2, 5])):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        if random.random() < 0.2:
            start = random.randrange(len(damaged))
            del damaged[start : start + 9]
        path.write_bytes(damaged)
        try:
            dict(open_checkpoint(tmp_path))
        except ValueError:
            refused += 1
    assert refused > 50


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    save({"model": {"w": torch.randn(500)}}, tmp_path)
    found = open_checkpoint(tmp_path)
    with open(tmp_path / "__0_0.distcp", "ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match=r"__0_0\.distcp was changed while it was being read"):
        found["w"]


def test_shards_that_dcp_saves_as_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from torch.distributed.checkpoint import HuggingFaceStorageWriter

    parts = {}
    for where in (True, False):
        writer = HuggingFaceStorageWriter(str(tmp_path / str(where)), save_distributed=where)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that there is one process only
            dcp.save({"w": torch.ones(2, 3)}, storage_writer=writer)
        parts[where] = next((tmp_path / str(where)).rglob("*.safetensors"))
    assert parts[True].name.startswith("shard-")
    assert "one process's shards" in refusal(parts[True])
    assert same(open_checkpoint(parts[False])["w"], torch.ones(2, 3))
    save_file({"w": torch.ones(2)}, tmp_path / "shard-00001-model-00001-of-00001.safetensors")
    assert set(open_checkpoint(tmp_path / "shard-00001-model-00001-of-00001.safetensors")) == {"w"}
