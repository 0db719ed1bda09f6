"""Ours beside the released results and the paper's."""

from modelsoups.report import beside_published
from modelsoups.report.numbers import MEAN, Result


def ours(accuracy, half):
    low, high = (accuracy - half) / 100, (accuracy + half) / 100
    return Result("soup", "greedy", MEAN, 0, 0, accuracy / 100, low, high)


def test_differences_outside_the_interval_are_marked():
    cells = beside_published.cells
    assert cells(ours(81.0, 0.34), 81.03, 80.5) == ["81.00", "81.03", "-0.03", "80.50", "+0.50*"]
    assert cells(None, 50.86, 50.75) == ["not available", "50.86", "", "50.75", ""]
    assert cells(ours(47.1, 0.3), 47.15, None) == ["47.10", "47.15", "-0.05", "", ""]
