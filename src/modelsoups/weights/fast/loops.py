"""Weighted sums and inner products of weights, compiled by Numba: four times as fast as NumPy.

NumPy first copies the weights to float64; here each number is converted in a register. The loops
release the GIL. Compiled code is cached next to this file or in the user's cache folder; if neither
can be written, each process compiles it (some seconds). Importing Numba takes half a second: import
this module inside a function. A row is the numbers of one checkpoint at a memory address, which is
not checked here. Letters of array names: K rows, R rows at a time; N numbers of a row, M in a chunk.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import extending, types
from numpy.typing import NDArray

ROWS = 8  # rows that are read in parallel
FLOAT32, BFLOAT16, FLOAT16 = range(3)  # kinds of numbers
# The largest float32 that does not become infinite when rounded to each kind.
LARGEST = np.array([0x7F7FFFFF, 0x7F7F7FFF, 0x477FEFFF], np.uint32).view(np.float32)
Addresses = NDArray[np.uint64]
Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
intrinsic: Any = extending.intrinsic
jitable: Any = extending.register_jitable


def compiled(signature: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that compiles a function; its machine code is cached for this version of its file."""

    def compile_it(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            made: Callable[..., Any] = numba.njit(signature, nogil=True, cache=True, **options)(function)
        except RuntimeError:  # no folder for the cache can be written
            made = numba.njit(signature, nogil=True, **options)(function)
        return made

    return compile_it


@intrinsic
def _pointer(typing: Any, address: Any) -> Any:
    """Convert an integer memory address to a pointer, in code compiled by Numba."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.uint64), generate


@jitable
def _row(rows_K: Addresses, k: int, skip: int, zeros_N: Float32s) -> Float32s:
    """Return row k from element `skip` on, as float32 at address rows_K[k]; zeros_N if k is too big."""
    if k < rows_K.size:
        return numba.carray(_pointer(rows_K[k] + np.uint64(4 * skip)), zeros_N.shape, np.float32)
    return zeros_N


@jitable
def _rows(rows_K: Addresses, k: int, skip: int, zeros_N: Float32s) -> tuple[Float32s, ...]:
    """Return rows k to k + ROWS - 1 from element `skip` on; zeros_N for each that does not exist."""
    a_N, b_N = _row(rows_K, k, skip, zeros_N), _row(rows_K, k + 1, skip, zeros_N)
    c_N, d_N = _row(rows_K, k + 2, skip, zeros_N), _row(rows_K, k + 3, skip, zeros_N)
    e_N, f_N = _row(rows_K, k + 4, skip, zeros_N), _row(rows_K, k + 5, skip, zeros_N)
    g_N, h_N = _row(rows_K, k + 6, skip, zeros_N), _row(rows_K, k + 7, skip, zeros_N)
    return a_N, b_N, c_N, d_N, e_N, f_N, g_N, h_N


@jitable
def _weight(weights_R: Float64s, k: int) -> float:
    """Return the weight of row k, or -0.0 if there is no such row, which changes no bit of a sum."""
    return weights_R[k] if k < weights_R.size else -0.0


@jitable
def _widen(address: int, kind: int, wide_N: Float32s) -> None:
    """Write the 16-bit floats at `address` (kind: BFLOAT16 or FLOAT16) to wide_N as float32."""
    narrow_N, bits_N = numba.carray(_pointer(address), wide_N.shape, np.uint16), wide_N.view(np.uint32)
    if kind == BFLOAT16:  # the upper half of a float32
        for i in range(wide_N.size):
            bits_N[i] = np.uint32(narrow_N[i]) << np.uint32(16)
        return
    for i in range(wide_N.size):  # float16: the exponent is then 112 too small, subnormal or not
        bits_N[i] = np.uint32(narrow_N[i] & 0x7FFF) << np.uint32(13)
    for i in range(wide_N.size):
        wide_N[i] *= np.float32(2.0**112)
    for i in range(wide_N.size):
        odd = np.uint32(0x7F800000 if bits_N[i] >= 0x47800000 else 0)  # infinity or NaN
        bits_N[i] |= odd | np.uint32(narrow_N[i] & 0x8000) << np.uint32(16)


@jitable
def _widen_rows(rows_K: Addresses, k: int, skip: int, kind: int, chunks_RM: Float32s, size: int) -> Addresses:
    """Convert `size` 16-bit floats of rows k, k + 1, ... to float32; return the new addresses."""
    wide_R = np.empty(min(ROWS, rows_K.size - k), np.uint64)
    for row in range(wide_R.size):
        wide_R[row] = chunks_RM[row].ctypes.data
        _widen(rows_K[k + row] + np.uint64(2 * skip), kind, chunks_RM[row, :size])
    return wide_R


@jitable
def _add_chunk(
    total_N: Float64s, rows_R: Addresses, skip: int, weights_R: Float64s, first: bool, zeros_N: Float32s
) -> None:
    a_N, b_N, c_N, d_N, e_N, f_N, g_N, h_N = _rows(rows_R, 0, skip, zeros_N)
    a, b, c, d = _weight(weights_R, 0), _weight(weights_R, 1), _weight(weights_R, 2), _weight(weights_R, 3)
    e, f, g, h = _weight(weights_R, 4), _weight(weights_R, 5), _weight(weights_R, 6), _weight(weights_R, 7)
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


@compiled("void(f8[::1], u8[::1], i8, f8[::1], b1, f4[:, ::1])")
def add(total_N: Float64s, rows_R: Addresses, kind: int, weights_R: Float64s, first: bool, chunks_RM: Float32s) -> None:
    """Add weight * row to total_N for up to ROWS rows in turn; each sum is rounded as in NumPy.

    kind: dtype of the rows (FLOAT32, BFLOAT16, FLOAT16). first: overwrite total_N. chunks_RM: a
    buffer for float32 copies, with ROWS + 1 rows; the last must be zero.
    """
    for start in range(0, total_N.size, chunks_RM.shape[1]):
        stop = min(start + chunks_RM.shape[1], total_N.size)
        zeros_M = chunks_RM[ROWS, : stop - start]
        if kind == FLOAT32:
            _add_chunk(total_N[start:stop], rows_R, start, weights_R, first, zeros_M)
        else:
            wide_R = _widen_rows(rows_R, 0, start, kind, chunks_RM, stop - start)
            _add_chunk(total_N[start:stop], wide_R, 0, weights_R, first, zeros_M)


@compiled("b1(f4[::1], f8[::1], f8, b1, i8)", error_model="numpy")
def divide(out_N: Float32s, total_N: Float64s, by: float, exact: bool, kind: int) -> bool:
    """Write total_N / by to out_N; return whether all fit dtype `kind`.

    exact: 1 / by has no rounding error (a power of two), so multiply by it, which is faster.
    """
    odd, factor, largest = 0, 1 / by, LARGEST[kind]
    for i in range(total_N.size):
        x = np.float32(total_N[i] * factor if exact else total_N[i] / by)
        odd += not abs(x) <= largest
        out_N[i] = x
    return odd == 0


@compiled("void(f8[::1], f4[::1], u8[::1], i8, f4[::1])", fastmath={"reassoc", "contract"})
def _multiply(found_R: Float64s, by_N: Float32s, rows_K: Addresses, k: int, zeros_N: Float32s) -> None:
    """Add the inner products of by_N with up to ROWS rows, from row k on, to found_R."""
    a_N, b_N, c_N, d_N, e_N, f_N, g_N, h_N = _rows(rows_K, k, 0, zeros_N)
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
    sums = a, b, c, d, e, f, g, h
    for row in range(found_R.size):
        found_R[row] += sums[row]


@compiled("void(f4[::1], u8[::1], i8, f4[::1], f4[:, ::1], f8[::1])")
def products(
    by_N: Float32s, rows_K: Addresses, kind: int, zeros_N: Float32s, chunks_RM: Float32s, found_K: Float64s
) -> None:
    """Write the inner product of by_N and each row to found_K; float64 sums, in no fixed order."""
    found_K[:] = 0
    for k in range(0, rows_K.size, ROWS):
        found_R = found_K[k : k + ROWS]
        if kind == FLOAT32:
            _multiply(found_R, by_N, rows_K, k, zeros_N)
            continue
        for start in range(0, by_N.size, chunks_RM.shape[1]):
            stop = min(start + chunks_RM.shape[1], by_N.size)
            wide_R = _widen_rows(rows_K, k, start, kind, chunks_RM, stop - start)
            _multiply(found_R, by_N[start:stop], wide_R, 0, chunks_RM[ROWS, : stop - start])
