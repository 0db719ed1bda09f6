"""Compiled loops against sums worked out by hand, and where their compiled code cannot be kept."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from modelsoups.weights.fast import loops
from modelsoups.weights.fast.blocks import KINDS

ZEROS = np.zeros(3, np.float32)
CHUNKS = np.zeros((loops.ROWS + 1, 5), np.float32)


def rows(*given: list[float]) -> list[np.ndarray]:
    return [np.array(row, np.float32) for row in given]


def addresses(some: list[np.ndarray]) -> np.ndarray:
    return np.array([row.ctypes.data for row in some], np.uint64)


def added(some: list[np.ndarray], weights: list[float], start: list[float] | None = None) -> np.ndarray:
    """Each ROWS of them to what is there, the first to `start` or to nothing."""
    total = np.array(start or [np.nan] * 3, float)
    for k in range(0, len(some), loops.ROWS):
        some_R, weights_R = addresses(some[k : k + loops.ROWS]), np.array(weights[k : k + loops.ROWS], float)
        loops.add(total, some_R, loops.FLOAT32, weights_R, start is None and k == 0, CHUNKS)
    return total


def test_rows_are_added_with_their_weights_to_nothing_or_to_what_is_there() -> None:
    assert added(rows([1, 2, -0.0], [3, 5, 0.0]), [2, -1]).tolist() == [-1, -1, 0]
    assert added(rows([1, 2, 3], [0, 0, 0]), [2, -1], start=[-1, -1, 0]).tolist() == [1, 3, 6]


@pytest.mark.parametrize("count", range(1, 18))
def test_each_of_any_number_of_rows_has_its_own_weight(count: int) -> None:
    some = rows(*([1, n, 0] for n in range(count)))
    weights = [2.0**n for n in range(count)]
    assert added(some, weights).tolist() == [2.0**count - 1, sum(n * w for n, w in enumerate(weights)), 0]
    found = np.empty(count)
    loops.products(np.array([1, 2, 3], np.float32), addresses(some), 0, ZEROS, CHUNKS, found)
    assert found.tolist() == [1 + 2 * n for n in range(count)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [1, 7, 8])
def test_so_has_each_row_of_16_bits(dtype: torch.dtype, count: int) -> None:
    """Seven numbers, of which five are widened at a time."""
    some = [torch.tensor([1, n, 0, -n, 2, 3 * n, 4], dtype=dtype) for n in range(count)]
    there, total = np.array([row.data_ptr() for row in some], np.uint64), np.full(7, np.nan)
    weights = np.arange(1.0, count + 1)
    loops.add(total, there, KINDS[dtype], weights, True, CHUNKS)
    ones, counts = weights.sum(), weights @ np.arange(count)
    assert total.tolist() == [ones, counts, 0, -counts, 2 * ones, 3 * counts, 4 * ones]
    products, by = np.empty(count), np.array([1, 2, 3, 5], np.float32)
    loops.products(by, there, KINDS[dtype], np.zeros(4, np.float32), CHUNKS[:, :3].copy(), products)
    assert products.tolist() == [1 + 2 * n - 5 * n for n in range(count)]


def test_missing_rows_keep_the_sign_of_nought() -> None:
    assert np.signbit(added(rows([-0.0, 0.0, 1.0]), [1])).tolist() == [True, False, False]


def test_sums_are_rounded_one_after_the_other() -> None:
    some = rows([1e30] * 3, [1.0] * 3, [-1e30] * 3)
    assert added(some, [1, 1, 1]).tolist() == [0] * 3  # 1e30 + 1 is 1e30; in another order it would be 1


def test_inner_products_are_summed_in_float64() -> None:
    some, found = rows([1, 2, 4], [2.0**30, 1, 1]), np.empty(2)
    loops.products(np.ones(3, np.float32), addresses(some), 0, ZEROS, CHUNKS, found)
    assert found.tolist() == [7, 2**30 + 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("by", "exact"), [(4.0, True), (3.0, False)])
def test_quotients_and_whether_they_are_finite(dtype: torch.dtype, by: float, exact: bool) -> None:
    out, total, kind = np.empty(3, np.float32), np.array([3.0, 6.0, -9.0]), KINDS[dtype]
    assert loops.divide(out, total, by, exact, kind)
    assert out.tolist() == (total / by).astype(np.float32).tolist()
    largest = loops.LARGEST[kind]
    for number in (largest, -largest):
        assert torch.tensor(number).to(dtype).isfinite()
        assert loops.divide(out, np.full(3, by * float(number)), by, exact, kind)
    above = (loops.LARGEST.view(np.uint32)[kind] + np.uint32(1)).view(np.float32)
    assert torch.tensor(above).to(dtype).isinf()
    for odd in (np.nan, np.inf, -np.inf, 1e300, -1e300, by * float(above)):
        assert not loops.divide(out, np.array([1.0, odd, 1.0]), by, exact, kind)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_number_of_16_bits_is_widened_as_torch_does(dtype: torch.dtype) -> None:
    row, total = torch.arange(2**16).to(torch.int32).to(torch.uint16).view(dtype), np.empty(2**16)
    loops.add(total, np.array([row.data_ptr()], np.uint64), KINDS[dtype], np.ones(1), True, CHUNKS)
    got = torch.from_numpy(total)
    assert torch.equal(got.isnan(), row.isnan())
    assert torch.equal(got.nan_to_num(9), row.double().nan_to_num(9))
    assert torch.equal(got.signbit(), row.signbit())


@pytest.mark.parametrize("count", [1, 7, 8])
@pytest.mark.parametrize("size", [1, 4, 5, 6, 11])  # chunks are of five numbers
def test_rows_are_added_chunk_by_chunk(count: int, size: int) -> None:
    generator = np.random.default_rng(0)
    some = [generator.standard_normal(size).astype(np.float32) for _ in range(count)]
    total, weights = np.empty(size), np.arange(1.0, count + 1)
    loops.add(total, addresses(some), loops.FLOAT32, weights, True, CHUNKS)
    assert total.tolist() == sum(w * row.astype(np.float64) for w, row in zip(weights, some, strict=True)).tolist()


def test_compiled_code_need_not_be_kept() -> None:
    code = (
        "import numpy as n; from modelsoups.weights.fast import loops as k; o = n.ones(1, n.float32); f = n.empty(1);"
    )
    code += "k.products(o, n.array([o.ctypes.data], n.uint64), 0, o, n.ones((9, 1), o.dtype), f); print(f)"
    nowhere = {"NUMBA_CACHE_DIR": "/proc/nowhere", "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    environment = {**os.environ, **nowhere}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "[1.]\n", done.stderr
