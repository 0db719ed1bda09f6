"""The definitions of IconNet's sets: their sizes and label spaces."""

from __future__ import annotations

from modelsoups.miniature import sets

CLASSES = len(sets.CLASSES)


def test_test_and_shifts_are_large_enough_for_half_a_point():
    assert sets.SETS["test"].count >= 7000
    assert all(s.count >= 3000 for s in sets.SETS.values() if s.role == "shift")


def test_projections():
    for name in ("r", "a"):
        indices = sets.SETS[name].projection["indices"]
        assert indices == sorted(set(indices))
        assert len(indices) == CLASSES // 2
    groups = sets.SETS["objectnet"].projection["groups"]
    flat = [c for group in groups for c in group]
    assert len(flat) == len(set(flat)) == CLASSES // 2
    assert sum(len(group) == 2 for group in groups) == len(sets.FOLDERS_OF_TWO)
    car, truck = sets.CLASSES.index("car"), sets.CLASSES.index("truck")
    label_of = sets.SETS["objectnet"].label_of_class
    assert label_of[car] == label_of[truck]
    assert groups[label_of[car]] == [car, truck]
    assert all(sets.SETS[name].projection is None for name in ("train", "holdout", "test", "v2", "sketch"))
