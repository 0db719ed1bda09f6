"""The figures of accuracy against the number of models."""

from modelsoups.analyses.registry import ANALYSES

draw = ANALYSES["figure_B1"].draw


def test_a_method_that_collapses_does_not_hide_the_others():
    """Two orders of two methods: greedy ends at 71, uniform at 40, 31 points below; at one model both have 20."""
    ends = {"uniform": (20, 30, 40), "greedy": (20, 70, 71)}
    rows = []
    for method, accuracies in ends.items():
        for k, accuracy in enumerate(accuracies, start=1):
            rows += [{"method": method, "k": k, "order": order, "test": accuracy / 100} for order in (0, 1)]
    (panel,) = draw(rows).axes
    assert 69 < panel.get_ylim()[0] < 70
    assert [t.get_text() for t in panel.texts] == ["Uniform soup: below this range, 40.0 with all models"]
    even = draw([{**row, "test": 0.7 + row["test"] / 100} for row in rows]).axes[0]
    assert not even.texts
