"""The numbers of a report: worked out by hand, and as text."""

import pytest
from hand_report import evidence, numbers_of

from modelsoups.report.numbers import p_value, percent


def test_accuracies_and_the_mean_of_shifts_are_as_worked_out_by_hand():
    numbers = numbers_of(evidence())
    greedy = numbers.rows["greedy"]
    result = greedy.results["test"]
    assert (result.correct, result.n, result.accuracy) == (70, 100, 0.7)
    # Wilson, 70 of 100, z = 1.959964: (0.7 + z2/200 -+ z sqrt(0.21/100 + z2/40000)) / (1 + z2/100)
    # = (0.719207 -+ 1.959964 * 0.0468619) / 1.038415
    assert (result.low, result.high) == pytest.approx((0.60415, 0.78105), abs=1e-5)
    assert greedy.shift_mean == pytest.approx((6 / 10 + 9 / 20) / 2)


def test_numbers_are_formatted_in_one_way():
    assert percent(0.12345) == "12.35"
    assert percent(-0.001, True) == "-0.10"
    assert percent(None) == "not available"
    assert p_value(1e-9) == "p < 0.0001"
    assert p_value(0.0042) == "p = 0.0042"
    assert p_value(0.5) == "p = 0.50"
