"""Loops over blocks of weights that NumPy and PyTorch have no operation for, compiled by Numba.

Each number is read once and widened to float64 in a register; NumPy widens to memory first and takes four times as
long. They hold no lock of the interpreter, so that threads run side by side. Compiled code is kept beside this file, or
in the user's cache, or where neither can be written made anew in each process (two seconds). Importing this module
takes half a second: import it where it is used.

Legend: N numbers of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

ROWS = 8
_ROWS = f"UniTuple(f4[::1], {ROWS})"
Rows = tuple[NDArray[np.float32], ...]


def _compiled(signature: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            made: Callable[..., Any] = numba.njit(signature, nogil=True, cache=True, **options)(function)
        except RuntimeError:  # no folder for it can be written
            made = numba.njit(signature, nogil=True, **options)(function)
        return made

    return compiled


@_compiled(f"void(f8[::1], {_ROWS}, UniTuple(f8, {ROWS}), b1)")
def add_rows(total_N: NDArray[np.float64], rows: Rows, weights: tuple[float, ...], first: bool) -> None:
    """Add weight * row for one row after the other, each rounded as NumPy does; `first`: to nothing.

    A row of zeros with the weight -0.0 changes no bit: x + -0.0 is x, whatever x is.
    """
    a_N, b_N, c_N, d_N, e_N, f_N, g_N, h_N = rows
    a, b, c, d, e, f, g, h = weights
    for i in range(total_N.size):
        x = -0.0 if first else total_N[i]
        x += a_N[i] * a
        x += b_N[i] * b
        x += c_N[i] * c
        x += d_N[i] * d
        x += e_N[i] * e
        x += f_N[i] * f
        x += g_N[i] * g
        x += h_N[i] * h
        total_N[i] = x


@_compiled("b1(f4[::1], f8[::1], f8, b1)", error_model="numpy")
def divide(out_N: NDArray[np.float32], total_N: NDArray[np.float64], by: float, exact: bool) -> bool:
    """out_N = total_N / by, or with `exact` total_N * (1 / by); whether all of it is finite."""
    odd, factor = 0, 1 / by
    for i in range(total_N.size):
        x = np.float32(total_N[i] * factor if exact else total_N[i] / by)
        odd += not abs(x) <= np.float32(3.4028235e38)  # the largest of them
        out_N[i] = x
    return odd == 0


@_compiled(f"UniTuple(f8, {ROWS})(f4[::1], {_ROWS})", fastmath={"reassoc", "contract"})
def products(by_N: NDArray[np.float32], rows: Rows) -> tuple[float, ...]:
    """The inner product of by_N and each row, summed in float64 in an order that the processor likes."""
    a_N, b_N, c_N, d_N, e_N, f_N, g_N, h_N = rows
    a = b = c = d = e = f = g = h = 0.0
    for i in range(by_N.size):
        x = np.float64(by_N[i])
        a += x * a_N[i]
        b += x * b_N[i]
        c += x * c_N[i]
        d += x * d_N[i]
        e += x * e_N[i]
        f += x * f_N[i]
        g += x * g_N[i]
        h += x * h_N[i]
    return a, b, c, d, e, f, g, h
