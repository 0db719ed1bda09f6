"""Whether boxes make a tensor, worked out by hand; that they give its blocks is in test_dcp.py."""

import pytest

from modelsoups.checkpoints.shards import is_covered


@pytest.mark.parametrize(
    ("shape", "boxes", "expected"),
    [
        ((), [((), ())], True),
        ((4,), [((0,), (4,))], True),
        ((4,), [((2,), (2,)), ((0,), (2,))], True),
        ((4,), [((0,), (2,)), ((1,), (2,))], False),  # four elements, but one of them twice
        ((4,), [((0,), (2,)), ((0,), (2,))], False),
        ((4,), [((0,), (4,)), ((4,), (0,))], True),  # of a process without a part
        ((4,), [((1,), (4,))], False),
        ((4,), [((0, 0), (4, 1))], False),
        ((4,), [], False),
        ((0, 3), [], True),
        ((2, 2), [((0, 0), (1, 2)), ((1, 0), (1, 1)), ((1, 1), (1, 1))], True),  # no grid
        ((2, 2), [((0, 0), (1, 2)), ((0, 1), (2, 1))], False),
        ((-1,), [((0,), (-1,))], False),
    ],
)
def test_boxes_that_make_a_tensor(shape, boxes, expected) -> None:
    assert is_covered(shape, boxes) == expected


def test_so_many_borders_that_they_are_not_compared() -> None:
    boxes = [((i, i), (1, 1)) for i in range(5000)]
    assert not is_covered((5000, 1), [((i, 0), (1, 1)) for i in range(4999)])
    assert is_covered((5000, 1), [((i, 0), (1, 1)) for i in range(5000)])
    assert not is_covered((5000, 5000), boxes)
