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
from modelsoups.core.blocks import ROWS, Room
from modelsoups.core.stored import Held
from modelsoups.core.weights import TensorSum
from modelsoups.soup import mixing

any_float32 = st.floats(width=32, allow_subnormal=True)  # NaN, infinities and the smallest and largest among them

numbers = st.floats(-3, 3) | st.just(0.0) | st.just(-0.0)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 16).flatmap(lambda k: arrays(np.float32, (k, 7), elements=any_float32)),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
    st.data(),
)
def test_sums_of_blocks_have_the_bits_of_core(rows_KN: np.ndarray, dtype: torch.dtype, data: st.DataObject) -> None:
    rows = torch.from_numpy(rows_KN).to(dtype)
    weights = data.draw(st.just([1.0] * len(rows)) | st.lists(numbers, min_size=len(rows), max_size=len(rows)))
    by = data.draw(st.sampled_from([1.0, 4.0, float(len(rows))]))
    room, expected = Room(7), TensorSum()
    left = np.full((7, dtype.itemsize), 63, np.uint8)
    room.begin(dtype, 7).add([left], [1.0])  # what an earlier sum left does not count
    got = room.begin(dtype, 7)
    with np.errstate(over="ignore", invalid="ignore"):  # infinity minus infinity
        for first in range(0, len(rows), ROWS):
            some, factors = rows[first : first + ROWS], weights[first : first + ROWS]
            for row, factor in zip(some, factors, strict=True):
                expected.add(row, factor)
            got.add([Held(row).flat()[0:7] for row in some], factors)
        a, (b, finite) = expected.divided(by), got.divided(by)
    assert torch.equal(a.isnan(), b.isnan())
    assert torch.equal(a.nan_to_num().view(torch.uint8), b.nan_to_num().view(torch.uint8))
    assert finite == bool(a.isfinite().all())


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
