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

from modelsoups import soup
from modelsoups.core.weights import TensorSum
from modelsoups.soup import mixing
from modelsoups.soup.blocks import Room, is_finite

any_float32 = st.floats(width=32, allow_subnormal=True)  # NaN, infinities and the smallest and largest among them


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 16).flatmap(lambda k: arrays(np.float32, (k, 7), elements=any_float32)),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)
def test_means_of_blocks_have_the_bits_of_core(rows_KN: np.ndarray, dtype: torch.dtype) -> None:
    rows = torch.from_numpy(rows_KN).to(dtype)
    room, expected = Room(7), TensorSum()
    room.begin(dtype, 7).add(memoryview(b"?" * (7 * dtype.itemsize)), 1.0)  # what an earlier sum left does not count
    got = room.begin(dtype, 7)
    with np.errstate(over="ignore", invalid="ignore"):  # infinity minus infinity
        for position, row in enumerate(rows):
            expected.add(row, 1.0)
            block = row.clone().view(torch.uint8).numpy().data
            if position % 2:  # read to the room's own memory
                got.memory[:] = block
            got.add(got.memory if position % 2 else block, 1.0)
        a, b = expected.divided(len(rows)), got.divided(len(rows))
    assert torch.equal(a.isnan(), b.isnan())
    assert torch.equal(a.nan_to_num().view(torch.uint8), b.nan_to_num().view(torch.uint8))
    assert is_finite(b) == bool(a.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_numbers_are_finite(dtype: torch.dtype) -> None:
    large = torch.full((70,), torch.finfo(dtype).max, dtype=dtype)  # whose square is not
    assert is_finite(large)
    for odd in (float("nan"), float("inf"), -float("inf")):
        assert not is_finite(torch.cat([large, torch.tensor([odd], dtype=dtype)]))
        assert not is_finite(torch.tensor([1.0, odd], dtype=dtype))


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
