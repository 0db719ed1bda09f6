"""Sums of blocks have the bits of TensorSum, whatever the numbers, and rows are checked before they are read."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from xxhash import xxh3_128_digest

from modelsoups.checkpoints.mapped import MappedFile, tensor_of
from modelsoups.checkpoints.tensors import InFile, checkpoint_of
from modelsoups.weights.fast import blocks
from modelsoups.weights.fast.blocks import Room, Rows
from modelsoups.weights.state_dicts import TensorSum
from modelsoups.workers.interrupts import cleaned_up

any_float32 = st.floats(width=32, allow_subnormal=True)  # NaN, infinities and the smallest and largest among them

numbers = st.floats(-3, 3) | st.just(0.0) | st.just(-0.0)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 16).flatmap(lambda k: arrays(np.float32, (k, 7), elements=any_float32)),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
    st.sampled_from(["in one stretch", "with gaps", "some with gaps"]),
    st.data(),
)
def test_sums_of_blocks_have_the_bits_of_tensor_sum(
    rows_KN: np.ndarray, dtype: torch.dtype, kind: str, data: st.DataObject
) -> None:
    rows = torch.from_numpy(rows_KN).to(dtype)
    weights = data.draw(st.just([1.0] * len(rows)) | st.lists(numbers, min_size=len(rows), max_size=len(rows)))
    by = data.draw(st.sampled_from([1.0, 4.0, float(len(rows))]))
    states = [{"w": gapped(row) if kind > "in" and (k or kind == "with gaps") else row} for k, row in enumerate(rows)]
    expected, found = TensorSum(), np.empty((3, len(rows), 16), np.uint8)
    with pytest.MonkeyPatch.context() as patch, np.errstate(over="ignore", invalid="ignore"):  # infinity - infinity
        patch.setattr(blocks, "BLOCK", 3)
        patch.setattr(blocks, "PIECE", 9)
        room, opened = Room(), Rows([checkpoint_of(state) for state in states])
        room.mix(Rows([checkpoint_of({"w": torch.full((7,), 63).to(dtype)})]), ("w", 0, 7), np.ones(1), 1)
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
    opened = Rows([checkpoint_of({"w": gapped(row) if kind == "with gaps" else row}) for row in rows])
    by, found = torch.tensor([1, -1, 2], dtype=torch.float64 if dtype == torch.float64 else torch.float32), np.empty(11)
    Room().products(opened, ("w", 3, 6), by, found)
    assert found.tolist() == [n + 3 - (n + 4) + 2 * (n + 5) for n in range(11)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_across_words_are_copied_first(tmp_path: Path, dtype: torch.dtype) -> None:
    row = torch.arange(5, dtype=dtype)
    content = row.view(torch.uint8).numpy().tobytes()
    (tmp_path / "weights").write_bytes(content + b"-" + content)
    file, checkpoint = MappedFile(tmp_path / "weights"), checkpoint_of({"w": row})
    for offset, there in ((0, True), (len(content) + 1, False)):
        checkpoint.entries["w"] = InFile(file, offset, dtype, (5,))
        rows = Rows([checkpoint])
        assert (rows.addresses(("w", 0, 5)) is not None) == there
        assert torch.equal(Room().mix(rows, ("w", 0, 5), np.array([2.0]), 1)[0], 2 * row)


def gapped(row: torch.Tensor) -> torch.Tensor:
    return torch.stack([row, row], dim=1)[:, 0]


def test_pieces_of_many_ingredients_are_smaller() -> None:
    counts = (1, 8, 9, 16, 17, 32, 33, 1000)
    assert [blocks.size_of_pieces(k) // blocks.BLOCK for k in counts] == [4, 4, 3, 2, 1, 1, 1, 1]


@pytest.mark.parametrize("other", [torch.ones(3), torch.ones(5, dtype=torch.bfloat16)])
def test_rows_that_are_unlike_the_first_are_refused(other: torch.Tensor) -> None:
    """Addresses have no length: a shorter row would be read beyond its end."""
    rows = Rows([checkpoint_of({"w": tensor}) for tensor in (torch.ones(5), other)])
    with pytest.raises(ValueError, match=r"tensor w is .*, expected \(5,\) float32 as in state in memory"):
        Room().products(rows, ("w", 0, 5), torch.ones(5), np.empty(2))


def test_ctrl_c_stops_all_threads_within_a_piece() -> None:
    """A piece of 800 rows takes 10 seconds here; the pass would take minutes."""
    checkpoints = [checkpoint_of({"w": torch.zeros(9)})] * 800
    groups = []

    def slow(rows: Rows, number: int, piece: blocks.Piece) -> None:
        for some in rows.groups():
            groups.append(some)
            time.sleep(0.1)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        blocks.each_piece(checkpoints, [("w", 0, 9)] * 64, lambda: slow)
    signal.signal(signal.SIGINT, before)
    assert time.monotonic() - begun < 2
    count = len(groups)
    time.sleep(0.3)
    assert len(groups) == count > 0


def test_a_ctrl_c_whose_exception_was_lost_stops_all_threads(monkeypatch) -> None:
    """Python ignores what a signal raises within `__del__`."""
    visited: list[int] = []

    def visit(rows: Rows, number: int, piece: blocks.Piece) -> None:
        visited.append(number)

    class Interrupting:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(sys, "unraisablehook", lambda found: None)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with cleaned_up():
        Interrupting()
        with pytest.raises(KeyboardInterrupt):
            blocks.each_piece([checkpoint_of({"w": torch.zeros(9)})], [("w", 0, 9)], lambda: visit)
    signal.signal(signal.SIGINT, before)
    assert not visited


def test_numbers_of_a_read_only_map_give_no_warning(tmp_path: Path, recwarn) -> None:
    """float64, integers and float8 are read through torch, which warns of arrays that it may not write to."""
    (tmp_path / "a").write_bytes(np.arange(3.0).tobytes())
    block = InFile(MappedFile(tmp_path / "a"), 0, torch.float64, (3,)).block(1, 3)
    assert not block.flags.writeable
    assert tensor_of(block, torch.float64).tolist() == [1, 2]
    assert tensor_of(block[:0], torch.float64).tolist() == []
    assert not recwarn.list
