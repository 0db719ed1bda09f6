"""Compiled loops against sums worked out by hand, and where their compiled code cannot be kept."""

import os
import subprocess
import sys

import numpy as np
import pytest

from modelsoups.core import kernels

NOUGHT = np.zeros(3, np.float32)


def rows(*given: list[float]) -> tuple[np.ndarray, ...]:
    return (*(np.array(row, np.float32) for row in given), *[NOUGHT] * (kernels.ROWS - len(given)))


def test_rows_are_added_with_their_weights_to_nothing_or_to_what_is_there() -> None:
    total, weights = np.array([7.0, 8.0, 9.0]), (2.0, -1.0, *[-0.0] * 6)
    kernels.add_rows(total, rows([1, 2, -0.0], [3, 5, 0.0]), weights, True)
    assert total.tolist() == [-1, -1, 0]
    kernels.add_rows(total, rows([1, 2, 3], [0, 0, 0]), weights, False)
    assert total.tolist() == [1, 3, 6]


def test_missing_rows_keep_the_sign_of_nought() -> None:
    total = np.empty(3)
    kernels.add_rows(total, rows([-0.0, 0.0, 1.0]), (1.0, *[-0.0] * 7), True)
    assert np.signbit(total).tolist() == [True, False, False]


def test_sums_are_rounded_one_after_the_other() -> None:
    total = np.empty(3)
    kernels.add_rows(total, rows([1e30] * 3, [1.0] * 3, [-1e30] * 3), (1.0,) * 8, True)
    assert total.tolist() == [0.0] * 3  # 1e30 + 1 is 1e30; in another order, or with a fused product, it would be 1


def test_inner_products_are_summed_in_float64() -> None:
    by, found = np.array([1, 1, 1], np.float32), kernels.products
    assert found(by, rows([1, 2, 4], [2.0**30, 1, 1])) == (7, 2**30 + 2, *[0] * 6)


@pytest.mark.parametrize(("by", "exact"), [(4.0, True), (3.0, False)])
def test_quotients_and_whether_they_are_finite(by: float, exact: bool) -> None:
    out, total = np.empty(3, np.float32), np.array([3.0, 6.0, -9.0])
    assert kernels.divide(out, total, by, exact)
    assert out.tolist() == (total / by).astype(np.float32).tolist()
    for odd in (np.nan, np.inf, -np.inf, 1e300, -1e300):  # the last two overflow
        assert not kernels.divide(out, np.array([1.0, odd, 1.0]), by, exact)
    assert kernels.divide(out, np.full(3, by * float(np.finfo(np.float32).max)), by, exact)


def test_compiled_code_need_not_be_kept() -> None:
    code = "import numpy as n; from modelsoups.core import kernels as k; o = n.ones(1, n.float32);"
    code += "print(k.products(o, (o,) * k.ROWS))"
    environment = {**os.environ, "NUMBA_CACHE_DIR": "/proc/nowhere"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == f"{(1.0,) * kernels.ROWS}\n", done.stderr
