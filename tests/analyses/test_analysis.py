"""Verdicts follow from intervals, and are corrected for their number."""

import pytest

from modelsoups.analyses.analysis import compared, corrected, correlated, counted, judged
from modelsoups.report.claims import FAILS, HOLDS, OPEN, Verdict, markdown


def estimate(value, low, high):
    return {"value": value, "low": low, "high": high}


def test_claims_are_corrected_for_their_number():
    """Half widths of 1: p = 0.0000886 at 2 and 0.019 at 1.2, which two claims leave below 0.05 and three do not."""
    strong = judged("x", "here", estimate(2.0, 1.0, 3.0))
    weak = judged("y", "there", estimate(-1.2, -2.2, -0.2))
    assert (strong.verdict, weak.verdict) == (HOLDS, FAILS)
    found = corrected([weak, Verdict("z", "", HOLDS, ""), strong])
    assert [v.among_all for v in found] == [FAILS, HOLDS, HOLDS]
    assert found[0].holm == pytest.approx(weak.p)
    assert found[1].holm is None
    found = corrected([weak] * 3)
    assert [v.among_all for v in found] == [OPEN] * 3
    line = "| y | there | does not hold | -120.00 [-220.00, -20.00] points | 0.02 | 0.06 | not decided"
    assert line in markdown(found)


def test_few_models_say_nothing_of_a_correlation():
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    x, y = [1.0, 2.0, 3.0], [1.0, 2.0, 4.0]
    assert correlated("x", "here", x, y, pairs) == []
    pairs = [("a", "b"), ("c", "d"), ("e", "f")]
    assert len(correlated("x", "here", x, y, pairs)) == 1
    assert correlated("x", "here", x, [1.0, 1.0, 1.0], pairs) == []


def test_more_often_than_not_is_judged_by_wilsons_interval():
    """9 of 10 is 60 to 98%, 6 of 10 is 31 to 83%."""
    assert counted("x", "here", [True] * 9 + [False]).verdict == HOLDS
    assert counted("x", "here", [True] * 6 + [False] * 4).verdict == OPEN
    assert counted("x", "here", [True] + [False] * 9).numbers == "1 of 10 [2%, 40%]"


def test_a_comparison_without_shifts_gives_no_verdict_on_them():
    rows = [{"comparison": "a - b", "test": estimate(0.02, 0.01, 0.03)}]
    assert compared(rows, "a - b", "shifts", "text", "here") == []
    assert compared(rows, "a - b", "test", "text", "here")[0].numbers == "+2.00 [+1.00, +3.00] points"
