"""The verdict rule, and the claims that a run can be asked."""

import pytest
from hand_report import evidence, numbers_of

from modelsoups.report import claims


@pytest.mark.parametrize(
    ("difference", "p", "says"),
    [(0.1, 0.049, "holds"), (-0.1, 0.049, "does not hold"), (0.1, 0.05, "not decided at this size"),
     (-0.1, 0.9, "not decided at this size"), (0.0, 1.0, "not decided at this size")],
)  # fmt: skip
def test_the_verdict_rule_at_its_edges(difference, p, says):
    assert claims.verdict(difference, p) == says


def test_claims_are_checked_for_the_rows_there_are():
    verdicts = {v.text: v for v in claims.check(numbers_of(evidence()))}
    greedy = verdicts["The greedy soup beats the best individual model in distribution"]
    assert greedy.verdict == "holds"
    assert greedy.numbers.startswith("+10.00 [")
    assert not any("Learned" in text for text in verdicts)
    assert any("WiSE-FT" in text for text in verdicts)
