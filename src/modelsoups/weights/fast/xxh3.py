"""XXH3 compiled by Numba: two threads mix in 0.95 of the time that they take with the xxhash package.

Its function takes back the interpreter's lock after each block, and the threads wait for each other.
Source: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md, the algorithm XXH3 of 128 bits
with seed 0, for more than 240 bytes. Numba's cache of `write_hashes` sees changes of this file alone,
so no code of other files may be compiled into it.
"""

import struct
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numpy.typing import NDArray

from modelsoups.weights.fast.loops import Addresses, compiled

SHORT = 240  # bytes; inputs up to this length have other formulas, which are not here
STRIPE, STRIPES = 64, 16  # bytes; stripes of a block
BLOCK = STRIPE * STRIPES  # bytes
SECRET = bytes.fromhex(  # XXH3's default, as the specification has it
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
PRIMES_32 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
PRIMES_64 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
AVALANCHE = 0x165667919E3779F9
START = PRIMES_32[2], *PRIMES_64[:4], PRIMES_32[1], PRIMES_64[4], PRIMES_32[0]
FIRST_PRIME, SECOND_PRIME = np.uint64(PRIMES_64[0]), np.uint64(PRIMES_64[1])
LAST_KEY, LOW_KEY, HIGH_KEY = len(SECRET) - STRIPE - 7, 11, len(SECRET) - STRIPE - 11  # offsets in SECRET
MASK = np.uint64(255)
NUMBER = ir.IntType(64)
LANES = ir.VectorType(NUMBER, 8)
intrinsic: Any = extending.intrinsic


def _lanes(*numbers: int) -> ir.Constant:
    return ir.Constant(LANES, list(numbers if len(numbers) == 8 else numbers * 8))


def _key(offset: int) -> ir.Constant:
    """Return 64 bytes of the secret as 8 numbers."""
    return _lanes(*struct.unpack_from("<8Q", SECRET, offset))


def _accumulate(builder: Any, sums: Any, data: Any, key: Any) -> Any:
    """Return the 8 sums after a stripe of data."""
    order = ir.Constant(ir.VectorType(ir.IntType(32), 8), [1, 0, 3, 2, 5, 4, 7, 6])
    keyed = builder.xor(data, key)
    low = builder.and_(keyed, _lanes(2**32 - 1))
    product = builder.mul(low, builder.lshr(keyed, _lanes(32)))
    return builder.add(builder.add(sums, builder.shuffle_vector(data, data, order)), product)


def _scramble(builder: Any, sums: Any) -> Any:
    """Return the 8 sums as a block ends with them."""
    mixed = builder.xor(sums, builder.lshr(sums, _lanes(47)))
    return builder.mul(builder.xor(mixed, _key(len(SECRET) - STRIPE)), _lanes(PRIMES_32[0]))


def _load(builder: Any, address: Any, offset: int = 0) -> Any:
    pointer = builder.inttoptr(builder.add(address, ir.Constant(NUMBER, offset)), LANES.as_pointer())
    return builder.load(pointer, align=1)


def _store(builder: Any, sums: Any, address: Any) -> None:
    builder.store(sums, builder.inttoptr(address, LANES.as_pointer()), align=1)


@intrinsic
def _start(typing: Any) -> Any:
    """Return the address of the 8 sums that a hash starts with, on the stack of the caller."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.ptrtoint(cgutils.alloca_once_value(builder, _lanes(*START)), NUMBER)

    return types.uint64(), generate


@intrinsic
def _add_block(typing: Any, sums: Any, data: Any) -> Any:
    """Add BLOCK bytes at the address `data` to the 8 numbers at the address `sums`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        found = _load(builder, values[0])
        for n in range(STRIPES):
            found = _accumulate(builder, found, _load(builder, values[1], STRIPE * n), _key(8 * n))
        _store(builder, _scramble(builder, found), values[0])
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), generate


def _secret(builder: Any, offset: Any) -> Any:
    """Return the address of the secret's byte `offset`."""
    text = ir.Constant(ir.ArrayType(ir.IntType(8), len(SECRET)), bytearray(SECRET))
    return builder.add(builder.ptrtoint(cgutils.global_constant(builder, "xxh3_secret", text), NUMBER), offset)


@intrinsic
def _add_stripe(typing: Any, sums: Any, data: Any, key: Any) -> Any:
    """Add STRIPE bytes at `data` to the 8 numbers at `sums`; key: an offset in the secret."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        key = _load(builder, _secret(builder, values[2]))
        found = _accumulate(builder, _load(builder, values[0]), _load(builder, values[1]), key)
        _store(builder, found, values[0])
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64, types.uint64), generate


@intrinsic
def _merged(typing: Any, sums: Any, key: Any, start: Any) -> Any:
    """Return half of the hash, made from the 8 numbers at `sums`; key: an offset in the secret."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        wide, found = ir.IntType(128), values[2]
        keyed = builder.xor(_load(builder, values[0]), _load(builder, _secret(builder, values[1])))
        lanes = [builder.zext(builder.extract_element(keyed, ir.Constant(NUMBER, n)), wide) for n in range(8)]
        for a, b in zip(lanes[::2], lanes[1::2], strict=True):
            product = builder.mul(a, b)
            high = builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), NUMBER)
            found = builder.add(found, builder.xor(builder.trunc(product, NUMBER), high))
        found = builder.xor(found, builder.lshr(found, ir.Constant(NUMBER, 37)))
        found = builder.mul(found, ir.Constant(NUMBER, AVALANCHE))
        return builder.xor(found, builder.lshr(found, ir.Constant(NUMBER, 32)))

    return types.uint64(types.uint64, types.uint64, types.uint64), generate


@compiled("void(u1[:, ::1], u8[::1], i8)")
def write_hashes(found_R16: NDArray[np.uint8], rows_R: Addresses, size: int) -> None:
    """Write the hash, 16 bytes, of `size` bytes (more than SHORT) at each address in rows_R to found_R16."""
    blocks = (size - 1) // BLOCK
    for row in range(rows_R.size):
        data, sums = rows_R[row], _start()
        for n in range(blocks):
            _add_block(sums, data + np.uint64(BLOCK * n))
        for n in range((size - 1 - BLOCK * blocks) // STRIPE):
            _add_stripe(sums, data + np.uint64(BLOCK * blocks + STRIPE * n), np.uint64(8 * n))
        _add_stripe(sums, data + np.uint64(size - STRIPE), np.uint64(LAST_KEY))
        low = _merged(sums, np.uint64(LOW_KEY), np.uint64(size) * FIRST_PRIME)
        high = _merged(sums, np.uint64(HIGH_KEY), ~(np.uint64(size) * SECOND_PRIME))
        for i in range(8):  # big-endian, the high half first
            shift = np.uint64(56 - 8 * i)
            found_R16[row, i], found_R16[row, 8 + i] = (high >> shift) & MASK, (low >> shift) & MASK
