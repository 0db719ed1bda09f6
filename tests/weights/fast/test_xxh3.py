"""The compiled XXH3 gives the hashes of the xxhash package."""

import numpy as np
import pytest
from xxhash import xxh3_128_digest

from modelsoups.weights.fast import xxh3

SIZES = [xxh3.SHORT + 1, 255, 256, 257, 1023, 1024, 1025, 1087, 1088, 1089, 2048, 2049, 100_001, 2**18]


@pytest.mark.parametrize("size", SIZES)
def test_hashes_are_those_of_xxhash(size: int) -> None:
    rows = np.random.default_rng(size).integers(0, 256, (3, size), dtype=np.uint8)
    found = np.empty((3, 16), np.uint8)
    xxh3.write_hashes(found, np.array([row.ctypes.data for row in rows], np.uint64), size)
    assert [row.tobytes() for row in found] == [xxh3_128_digest(row) for row in rows]


def test_rows_may_begin_at_any_byte() -> None:
    content, found = np.arange(5000).astype(np.uint8), np.empty((1, 16), np.uint8)
    xxh3.write_hashes(found, np.array([content.ctypes.data + 3], np.uint64), 4001)
    assert found.tobytes() == xxh3_128_digest(content[3:4004])
