"""The hash of a state, frozen and sensitive to content alone, and which tensors mixing averages."""

import hashlib
import struct

import pytest
import torch

from modelsoups.checkpoints.states import averaged, describe, state_sha256


def test_floats_are_averaged_integers_are_not_and_complex_numbers_are_refused() -> None:
    kept = (torch.int64, torch.bool, torch.uint8)
    taken = (torch.float64, torch.float32, torch.bfloat16, torch.float8_e5m2)
    assert all(averaged(torch.empty(2, dtype=dtype)) for dtype in taken)
    assert not any(averaged(torch.empty(2, dtype=dtype)) for dtype in kept)
    assert describe(torch.empty(10, 128)) == "(10, 128) float32"
    with pytest.raises(ValueError, match=r"\(2,\) complex64: complex tensors are not supported"):
        averaged(torch.empty(2, dtype=torch.complex64))


def test_the_hash_is_frozen() -> None:
    """Caches are keyed by it: a change throws all of them away. Name, dtype, shape as a JSON line, then the bytes."""
    content = b'["a", "torch.float32", [2]]\n' + struct.pack("<2f", 1.0, 2.0)
    assert state_sha256({"a": torch.tensor([1.0, 2.0])}) == hashlib.sha256(content).hexdigest()


def test_the_hash_sees_content_and_nothing_else() -> None:
    a, b = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([True, False])
    whole = state_sha256({"a": a, "b": b})
    assert whole == state_sha256({"b": b, "a": a})
    assert whole == state_sha256({"a": a.T.contiguous().T, "b": b})  # strides are not content
    others = [
        {"a": a, "c": b},
        {"a": a.double(), "b": b},
        {"a": a.reshape(4), "b": b},
        {"a": a.T, "b": b},
        {"a": a},
        {"a": a, "b": ~b},
        {"a": -a.neg() * 1.0000001, "b": b},
    ]
    assert len({whole, *map(state_sha256, others)}) == 1 + len(others)
    assert state_sha256({"a": torch.ones(2).bfloat16(), "b": torch.ones(0), "c": torch.tensor(1)})
