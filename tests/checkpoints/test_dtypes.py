"""Checkpoints of different dtypes, read as if they had one."""

import pytest
import torch

from modelsoups.checkpoints.dtypes import alike, dtype_of
from modelsoups.checkpoints.tensors import checkpoint_of
from modelsoups.weights.digests import digest


def test_tensors_whose_dtypes_differ_are_widened_without_rounding() -> None:
    exact = {"a": torch.arange(6.0).view(2, 3) / 8, "b": torch.tensor(0.5), "n": torch.tensor([3]), "e": torch.ones(0)}
    half = {"a": exact["a"].half(), "b": exact["b"].bfloat16(), "n": exact["n"], "e": torch.ones(0).half()}
    one, two = alike([checkpoint_of(exact), checkpoint_of(half)])
    assert torch.equal(one["a"], exact["a"])
    assert all(torch.equal(two[key], exact[key]) and two[key].dtype == exact[key].dtype for key in exact)
    assert digest(two) == digest(checkpoint_of(half)), "the digest is of what is stored"


def test_equal_dtypes_and_other_kinds_are_left_alone() -> None:
    halves = [checkpoint_of({"w": torch.ones(2).half(), "n": torch.ones(2)}) for _ in range(2)]
    assert alike(halves)[0] is halves[0]
    odd = [checkpoint_of({"n": torch.ones(2)}), checkpoint_of({"n": torch.ones(2).long()})]
    assert alike(odd)[1] is odd[1], "mixing refuses these"
    double = alike([checkpoint_of({"w": torch.ones(2).double()}), checkpoint_of({"w": torch.ones(2).half()})])
    assert double[1]["w"].dtype == torch.float64


def test_the_dtype_of_a_soup_is_named_as_torch_does() -> None:
    assert dtype_of("bfloat16") is dtype_of(torch.bfloat16) is torch.bfloat16
    assert dtype_of(None) is None
    with pytest.raises(ValueError, match="dtype=int8: expected one of float32, float16, bfloat16, or None"):
        dtype_of("int8")
