"""Files with small changes, for the tests and benchmarks of readers of foreign bytes."""

import random

EDGES = [0, 1, -1, 2**15, 2**31 - 1, -(2**31), 2**40, 2**63 - 1, -(2**63)]  # sizes and offsets that headers may claim


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A few changed bytes, a piece cut out, a piece twice, or a cut-off end; early bytes (headers) more often."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = int(len(data) * rng.random() ** 2)
        kind = rng.randrange(5)
        if kind == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del data[at : at + rng.randrange(1, 40)]
        elif kind == 2:
            data[at:at] = data[at : at + rng.randrange(1, 40)]
        elif kind == 3:
            del data[at + 1 :]
        else:
            data[at : at + 1] = rng.choice([b"9", b"-", b'"', b"[", b"}", b"\xff", b"\x00", b"e9"])
    return bytes(data)


def with_another_number(content: bytes, rng: random.Random) -> bytes:
    """A number in 2, 4 or 8 bytes, or in digits, is replaced by one at the edge of what fits."""
    data, number = bytearray(content), rng.choice(EDGES)
    at, size = rng.randrange(len(data) + 1), rng.choice([2, 4, 8])
    if rng.random() < 0.3:
        data[at : at + len(str(number))] = str(number).encode()
    else:
        data[at : at + size] = (number % 256**size).to_bytes(size, rng.choice(["little", "big"]))
    return bytes(data)
