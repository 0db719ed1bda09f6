"""Layouts of checkpoints: how two differ, which of many are equal, and what an error says about it."""

import pytest
import torch

from modelsoups.checkpoints.layouts import check_layout, check_layouts, difference, grouped, layout_of
from modelsoups.checkpoints.tensors import InMemory, checkpoint_of

USUAL = {"a": "(1,) float32", "w": "(2, 3) float32"}


def test_a_layout_is_names_shapes_and_dtypes_without_reading(monkeypatch) -> None:
    state = {"a": torch.ones(1), "w": torch.ones(2, 3)}
    monkeypatch.setattr(InMemory, "tensor", lambda self: pytest.fail("a tensor was read"))
    assert layout_of(state) == layout_of(checkpoint_of(state)) == USUAL


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"a": "(1,) float32"}, "tensor w is missing, expected (2, 3) float32"),
        ({**USUAL, "c": "(4,) int64"}, "tensor c is (4,) int64, expected no such tensor"),
        ({**USUAL, "w": "(4, 3) float32"}, "tensor w is (4, 3) float32, expected (2, 3) float32"),
        ({"b": "(1,) float32"}, "tensor a is missing, expected (1,) float32 (3 tensors differ)"),
    ],
)
def test_the_first_difference_is_named(found: dict[str, str], message: str) -> None:
    assert str(difference(USUAL, found)) == message


def test_order_is_no_difference() -> None:
    assert difference(USUAL, dict(reversed(USUAL.items()))) is None
    odd = {"a": "(1,) float16"}
    assert grouped({"0": USUAL, "1": odd, "2": dict(reversed(USUAL.items())), "3": odd}) == [["0", "2"], ["1", "3"]]


def test_checks_name_the_checkpoint_and_the_way_out() -> None:
    states = {"one": torch.ones(2), "two": torch.ones(2).half(), "three": torch.ones(2, dtype=torch.complex64)}
    one, two, three = (checkpoint_of({"w": tensor}, name) for name, tensor in states.items())
    check_layouts([one, checkpoint_of({"w": torch.zeros(2)}, "four")])
    with pytest.raises(
        ValueError, match=r"^two cannot be mixed with one \(`modelsoups mix --dtype float32` .*\): tens"
    ):
        check_layouts([one, two])
    with pytest.raises(
        ValueError, match=r"^five cannot be mixed with one \(`modelsoups doctor` .*\): tensor w is \(3,\)"
    ):
        check_layouts([one, checkpoint_of({"w": torch.zeros(3)}, "five")])
    with pytest.raises(ValueError, match=r"^three: tensor w is complex"):
        check_layouts([three, three])
    with pytest.raises(ValueError, match=r"^here: tensor w is \(2,\) float32, expected \(3,\) float32$"):
        check_layout(one, {"w": "(3,) float32"}, "here")
