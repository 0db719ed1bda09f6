"""Tensors in files and in memory: their bytes by blocks, whatever their strides."""

from pathlib import Path

import pytest
import torch

from modelsoups import soup
from modelsoups.checkpoints.mapped import MappedFile
from modelsoups.checkpoints.tensors import InFile, InMemory, checkpoint_of

BASE = torch.arange(24.0).reshape(4, 6)


@pytest.mark.parametrize("tensor", [BASE, BASE.t(), BASE[1:, ::2], BASE[0, 0], BASE[:, 0].bfloat16()])
def test_blocks_are_those_of_the_flat_tensor(tmp_path: Path, tensor: torch.Tensor) -> None:
    flat = tensor.contiguous().reshape(-1)
    content = flat.view(torch.uint8).numpy().tobytes()
    (tmp_path / "a").write_bytes(b"-" + content)
    entries = [InMemory(tensor), InFile(MappedFile(tmp_path / "a"), 1, tensor.dtype, tuple(tensor.shape))]
    size = tensor.itemsize
    for entry in entries:
        assert torch.equal(entry.tensor(), tensor)
        for start in range(len(flat)):
            for stop in range(start + 1, len(flat) + 1):
                assert entry.block(start, stop).tobytes() == content[start * size : stop * size]
    assert (entries[0].address() is None) == (not tensor.is_contiguous())


def test_a_file_that_became_shorter_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(16))
    entry = InFile(MappedFile(tmp_path / "a"), 0, torch.float32, (4,))
    with open(tmp_path / "a", "r+b") as file:
        file.truncate(12)
    assert entry.block(0, 3).tobytes() == bytes(12)
    for read in (entry.address, entry.tensor, lambda: entry.block(3, 4)):
        with pytest.raises(ValueError, match="a ends too early; it was truncated"):
            read()


def test_states_that_share_memory_are_tied_and_others_are_not() -> None:
    made = checkpoint_of({"a": BASE, "b": BASE, "c": BASE[:2], "d": BASE.clone(), "e": torch.empty(0)})
    assert made.tied == {"b": "a"}


@pytest.mark.parametrize("odd", [torch.eye(2).to_sparse(), torch.empty(2, device="meta"), 3])
def test_entries_that_are_no_dense_tensors_are_refused(odd: object) -> None:
    with pytest.raises(ValueError, match=r"state in memory: (tensor|entry) a is "):
        checkpoint_of({"a": odd})


def test_a_lazily_negated_tensor_has_its_sign() -> None:
    negated = torch.tensor([1 + 2j]).conj().imag  # a view of 2 with a bit that says "minus", contiguous as it is one
    assert negated.is_neg()
    assert negated.is_contiguous()
    mixed = soup.mixed(soup.uniform([{"w": negated}]), [{"w": negated}])
    assert mixed["w"].tolist() == [-2]
