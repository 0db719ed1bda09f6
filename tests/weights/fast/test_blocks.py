"""Sums of blocks have the bits of core's, whatever the numbers; and the output goes to the disk piece by piece."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from xxhash import xxh3_128_digest

from modelsoups import soup
from modelsoups.checkpoints.formats import opened_state
from modelsoups.checkpoints.tensors import MappedFile, Stored
from modelsoups.weights import mixing
from modelsoups.weights.fast import blocks
from modelsoups.weights.fast.blocks import Room, Rows
from modelsoups.weights.state_dicts import TensorSum

any_float32 = st.floats(width=32, allow_subnormal=True)  # NaN, infinities and the smallest and largest among them

numbers = st.floats(-3, 3) | st.just(0.0) | st.just(-0.0)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 16).flatmap(lambda k: arrays(np.float32, (k, 7), elements=any_float32)),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
    st.sampled_from(["in one stretch", "with gaps", "some with gaps"]),
    st.booleans(),
    st.data(),
)
def test_sums_of_blocks_have_the_bits_of_core(
    rows_KN: np.ndarray, dtype: torch.dtype, kind: str, own: bool, data: st.DataObject
) -> None:
    rows = torch.from_numpy(rows_KN).to(dtype)
    weights = data.draw(st.just([1.0] * len(rows)) | st.lists(numbers, min_size=len(rows), max_size=len(rows)))
    by = data.draw(st.sampled_from([1.0, 4.0, float(len(rows))]))
    states = [{"w": gapped(row) if kind > "in" and (k or kind == "with gaps") else row} for k, row in enumerate(rows)]
    expected, found = TensorSum(), np.empty((3, len(rows), 16), np.uint8)
    with pytest.MonkeyPatch.context() as patch, np.errstate(over="ignore", invalid="ignore"):  # infinity - infinity
        patch.setattr(blocks, "BLOCK", 3)
        patch.setattr(blocks, "PIECE", 9)
        room, opened = Room(), Rows([opened_state(state) for state in states])
        if not own:  # as where xxhash does not show its function
            patch.setattr(room.kernels, "XXH3", 0)
        room.mix(Rows([opened_state({"w": torch.full((7,), 63).to(dtype)})]), ("w", 0, 7), np.ones(1), 1)
        for row, weight in zip(rows, weights, strict=True):
            expected.add(row, weight)
        a, (b, finite) = expected.divided(by), room.mix(opened, ("w", 0, 7), np.array(weights), by, found)
    assert torch.equal(a.isnan(), b.isnan())
    assert torch.equal(a.nan_to_num().view(torch.uint8), b.nan_to_num().view(torch.uint8))
    assert finite == bool(a.isfinite().all())
    for part, words_K in zip(rows.split(3, dim=1), found, strict=True):
        assert [w.tobytes() for w in words_K] == [xxh3_128_digest(r.view(torch.uint8).numpy()) for r in part]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("kind", ["in one stretch", "with gaps"])
def test_inner_products_of_pieces(monkeypatch, dtype: torch.dtype, kind: str) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 2)
    monkeypatch.setattr(blocks, "PIECE", 4)
    rows = [torch.arange(n, n + 7, dtype=dtype) for n in range(11)]
    opened = Rows([opened_state({"w": gapped(row) if kind == "with gaps" else row}) for row in rows])
    by, found = torch.tensor([1, -1, 2], dtype=torch.float64 if dtype == torch.float64 else torch.float32), np.empty(11)
    Room().products(opened, ("w", 3, 6), by, found)
    assert found.tolist() == [n + 3 - (n + 4) + 2 * (n + 5) for n in range(11)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_across_words_are_copied_first(tmp_path: Path, dtype: torch.dtype) -> None:
    row = torch.arange(5, dtype=dtype)
    content = row.view(torch.uint8).numpy().tobytes()
    (tmp_path / "weights").write_bytes(content + b"-" + content)
    file, checkpoint = MappedFile(tmp_path / "weights"), opened_state({"w": row})
    for offset, there in ((0, True), (len(content) + 1, False)):
        checkpoint.entries["w"] = Stored(file, offset, dtype, (5,))
        rows = Rows([checkpoint])
        assert (rows.addresses(("w", 0, 5)) is not None) == there
        assert torch.equal(Room().mix(rows, ("w", 0, 5), np.array([2.0]), 1)[0], 2 * row)


def gapped(row: torch.Tensor) -> torch.Tensor:
    return torch.stack([row, row], dim=1)[:, 0]


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


def test_pieces_of_many_ingredients_are_smaller() -> None:
    assert [blocks.size_of_pieces(k) // blocks.BLOCK for k in (1, 8, 9, 16, 17, 32, 33, 1000)] == [
        4,
        4,
        3,
        2,
        1,
        1,
        1,
        1,
    ]


@pytest.mark.parametrize("other", [torch.ones(3), torch.ones(5, dtype=torch.bfloat16)])
def test_rows_that_are_unlike_the_first_are_refused(other: torch.Tensor) -> None:
    """Addresses have no length: a shorter row would be read beyond its end."""
    rows = Rows([opened_state({"w": tensor}) for tensor in (torch.ones(5), other)])
    with pytest.raises(ValueError, match=r"tensor w is torch.*expected torch\.float32 \(5,\)"):
        Room().products(rows, ("w", 0, 5), torch.ones(5), np.empty(2))
