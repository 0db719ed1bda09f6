"""Loops over blocks of weights that NumPy, PyTorch and xxhash have no operation for, compiled by Numba.

Each number is read once and widened to float64 in a register; NumPy widens to memory first and takes four times as
long. All rows of a block are one call, which holds no lock of the interpreter: to take it back costs as much as reading
100 kB where another thread holds it. Compiled code is kept beside this file, or in the user's cache, or where neither
can be written made anew in each process (some seconds). Importing this module takes half a second: import it where it
is used.

Rows are given by their addresses, which nothing here can check: `core.blocks` gives them, and holds what lies there.

Legend: K rows of N numbers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import extending, types
from numpy.typing import NDArray
from xxhash import _xxhash  # type: ignore[attr-defined]

ROWS = 8  # that are read side by side
FLOAT32, BFLOAT16, FLOAT16 = range(3)  # kinds of numbers
LARGEST = np.array([0x7F7FFFFF, 0x7F7F7FFF, 0x477FEFFF], np.uint32).view(np.float32)  # that is not rounded to infinity
Addresses = NDArray[np.uint64]
Row = NDArray[np.float32]
Numbers = NDArray[np.float64]
Digests = NDArray[np.uint8]
intrinsic: Any = extending.intrinsic
jitable: Any = extending.register_jitable


def _compiled(signature: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            made: Callable[..., Any] = numba.njit(signature, nogil=True, cache=True, **options)(function)
        except RuntimeError:  # no folder for it can be written
            made = numba.njit(signature, nogil=True, **options)(function)
        return made

    return compiled


@intrinsic
def _there(typing: Any, address: Any) -> Any:
    """An address as a pointer."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.uint64), generate


@intrinsic
def _call(typing: Any, function: Any, data: Any, size: Any) -> Any:
    """The low and the high half that XXH3_128bits at this address gives."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        number = ir.IntType(64)
        kind = ir.FunctionType(ir.LiteralStructType([number, number]), [number, number])
        halves = builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])
        parts = [builder.extract_value(halves, part) for part in (0, 1)]
        return context.make_tuple(builder, signature.return_type, parts)

    return types.UniTuple(types.uint64, 2)(types.uint64, types.uint64, types.uint64), generate


def _function() -> int:
    """Where the xxhash package has XXH3_128bits, or 0 where it does not say (on Windows)."""
    try:
        return ctypes.cast(ctypes.CDLL(_xxhash.__file__).XXH3_128bits, ctypes.c_void_p).value or 0
    except (OSError, AttributeError):
        return 0


XXH3 = _function()


@jitable
def _row(rows_K: Addresses, k: int, skip: int, nought_N: Row) -> Row:
    """The k-th row from so many numbers on, or zeros where there are less."""
    if k < rows_K.size:
        return numba.carray(_there(rows_K[k] + np.uint64(4 * skip)), nought_N.shape, np.float32)
    return nought_N


@jitable
def _rows(rows_K: Addresses, k: int, skip: int, nought_N: Row) -> tuple[Row, ...]:
    """ROWS rows from the k-th on."""
    a_N, b_N = _row(rows_K, k, skip, nought_N), _row(rows_K, k + 1, skip, nought_N)
    c_N, d_N = _row(rows_K, k + 2, skip, nought_N), _row(rows_K, k + 3, skip, nought_N)
    e_N, f_N = _row(rows_K, k + 4, skip, nought_N), _row(rows_K, k + 5, skip, nought_N)
    g_N, h_N = _row(rows_K, k + 6, skip, nought_N), _row(rows_K, k + 7, skip, nought_N)
    return a_N, b_N, c_N, d_N, e_N, f_N, g_N, h_N


@jitable
def _weight(weights_K: Numbers, k: int) -> float:
    """That of a missing row of zeros changes no bit: x + 0.0 * -0.0 is x, whatever x is."""
    return weights_K[k] if k < weights_K.size else -0.0


@jitable
def _weights(weights_K: Numbers, k: int) -> tuple[float, ...]:
    a, b, c, d = _weight(weights_K, k), _weight(weights_K, k + 1), _weight(weights_K, k + 2), _weight(weights_K, k + 3)
    k += 4
    e, f, g, h = _weight(weights_K, k), _weight(weights_K, k + 1), _weight(weights_K, k + 2), _weight(weights_K, k + 3)
    return a, b, c, d, e, f, g, h


@_compiled("void(f8[::1], u8[::1], i8, i8, f8[::1], b1, f4[::1])")
def add(total_N: Numbers, rows_K: Addresses, k: int, skip: int, weights_K: Numbers, first: bool, nought_N: Row) -> None:
    """Add weight * row for ROWS rows from the k-th on, from so many numbers on; `first`: to nothing.

    One row after the other, each rounded as NumPy does.
    """
    a_N, b_N, c_N, d_N, e_N, f_N, g_N, h_N = _rows(rows_K, k, skip, nought_N)
    a, b, c, d, e, f, g, h = _weights(weights_K, k)
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


@jitable
def _widen(address: int, kind: int, wide_N: Row) -> None:
    """Numbers of 16 bits in float32, without rounding."""
    narrow_N, bits_N = numba.carray(_there(address), wide_N.shape, np.uint16), wide_N.view(np.uint32)
    if kind == BFLOAT16:  # the upper half of a float32
        for i in range(wide_N.size):
            bits_N[i] = np.uint32(narrow_N[i]) << np.uint32(16)
        return
    for i in range(wide_N.size):  # float16: an exponent that is 112 too small, which a product mends, subnormal or not
        bits_N[i] = np.uint32(narrow_N[i] & 0x7FFF) << np.uint32(13)
    for i in range(wide_N.size):
        wide_N[i] *= np.float32(2.0**112)
    for i in range(wide_N.size):
        odd = np.uint32(0x7F800000 if bits_N[i] >= 0x47800000 else 0)  # 65536 and more: infinity or NaN
        bits_N[i] |= odd | np.uint32(narrow_N[i] & 0x8000) << np.uint32(16)


@jitable
def _widen_rows(rows_K: Addresses, k: int, skip: int, kind: int, wide_RM: Row, size: int) -> Addresses:
    """Where so many numbers of ROWS rows lie in float32: from the k-th row and so many numbers on."""
    wide_R = np.empty(min(ROWS, rows_K.size - k), np.uint64)
    for row in range(wide_R.size):
        wide_R[row] = wide_RM[row].ctypes.data
        _widen(rows_K[k + row] + np.uint64(2 * skip), kind, wide_RM[row, :size])
    return wide_R


@jitable
def _add_narrow(
    total_N: Numbers, rows_K: Addresses, k: int, skip: int, kind: int, weights_K: Numbers, first: bool, wide_RM: Row
) -> None:
    """`add` of rows of 16 bits, M numbers at a time."""
    for start in range(0, total_N.size, wide_RM.shape[1]):
        stop = min(start + wide_RM.shape[1], total_N.size)
        wide_R = _widen_rows(rows_K, k, skip + start, kind, wide_RM, stop - start)
        nought_M = wide_RM[ROWS, : stop - start]
        add(total_N[start:stop], wide_R, 0, 0, weights_K[k : k + wide_R.size], first, nought_M)


@_compiled("b1(f4[::1], f8[::1], f8, b1, i8)", error_model="numpy")
def divide(out_N: Row, total_N: Numbers, by: float, exact: bool, kind: int) -> bool:
    """out_N = total_N / by, or with `exact` total_N * (1 / by); whether all of it is finite as its kind."""
    odd, factor, largest = 0, 1 / by, LARGEST[kind]
    for i in range(total_N.size):
        x = np.float32(total_N[i] * factor if exact else total_N[i] / by)
        odd += not abs(x) <= largest
        out_N[i] = x
    return odd == 0


@jitable
def _hash(xxh3: int, address: int, size: int, found_16: Digests) -> None:
    low, high = _call(xxh3, address, size)
    for i in range(8):  # the canonical form: big-endian, the high half first
        shift = np.uint64(56 - 8 * i)
        found_16[i], found_16[8 + i] = (high >> shift) & np.uint64(255), (low >> shift) & np.uint64(255)


@_compiled("b1(f4[::1], f8[::1], u8[::1], i8, f8[::1], f8, b1, f4[::1], f4[:, ::1], u8, u1[:, :, ::1])")
def mix(
    out_n: Row,
    total_N: Numbers,
    rows_K: Addresses,
    kind: int,
    weights_K: Numbers,
    by: float,
    exact: bool,
    nought_N: Row,
    wide_RM: Row,
    xxh3: int,
    found_PK16: Digests,
) -> bool:
    """The rows' sum, divided, N numbers at a time; whether all of it is finite. kind: of the rows' numbers.

    wide_RM: room for narrower numbers, ROWS + 1 rows, of which the last holds zeros.
    found_PK16 takes the hash of N numbers of each row, while they are in the cache, for as many as it has room for.
    """
    finite, width = True, 4 if kind == FLOAT32 else 2
    for part, start in enumerate(range(0, out_n.size, total_N.size)):
        stop = min(start + total_N.size, out_n.size)
        some_N, zeros_N = total_N[: stop - start], nought_N[: stop - start]
        for k in range(0, rows_K.size, ROWS):
            if kind == FLOAT32:
                add(some_N, rows_K, k, start, weights_K, k == 0, zeros_N)
            else:
                _add_narrow(some_N, rows_K, k, start, kind, weights_K, k == 0, wide_RM)
            for row in range(k, min(k + ROWS, rows_K.size) if part < len(found_PK16) else k):
                _hash(xxh3, rows_K[row] + np.uint64(width * start), width * (stop - start), found_PK16[part, row])
        finite &= divide(out_n[start:stop], some_N, by, exact, kind)
    return finite


@_compiled("void(f8[::1], f4[::1], u8[::1], i8, f4[::1])", fastmath={"reassoc", "contract"})
def _multiply(found_K: Numbers, by_N: Row, rows_K: Addresses, k: int, nought_N: Row) -> None:
    """Add the inner products of by_N and ROWS rows from the k-th on to the first of found_K."""
    a_N, b_N, c_N, d_N, e_N, f_N, g_N, h_N = _rows(rows_K, k, 0, nought_N)
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
    for row in range(found_K.size):
        found_K[row] += sums[row]


@_compiled("void(f4[::1], u8[::1], i8, f4[::1], f4[:, ::1], f8[::1])")
def products(by_N: Row, rows_K: Addresses, kind: int, nought_N: Row, wide_RM: Row, found_K: Numbers) -> None:
    """The inner product of by_N and each row, summed in float64 in an order that the processor likes.

    kind and wide_RM as in `mix`.
    """
    found_K[:] = 0
    for k in range(0, rows_K.size, ROWS):
        found_R = found_K[k : k + ROWS]
        if kind == FLOAT32:
            _multiply(found_R, by_N, rows_K, k, nought_N)
            continue
        for start in range(0, by_N.size, wide_RM.shape[1]):
            stop = min(start + wide_RM.shape[1], by_N.size)
            wide_R = _widen_rows(rows_K, k, start, kind, wide_RM, stop - start)
            _multiply(found_R, by_N[start:stop], wide_R, 0, wide_RM[ROWS, : stop - start])
