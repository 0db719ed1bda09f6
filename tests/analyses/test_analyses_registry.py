"""The list of analyses, by name and in the order of the paper."""

import pytest

from modelsoups.analyses.registry import ANALYSES, wanted


def test_the_wanted_analyses_come_in_the_order_of_the_paper():
    assert [a.name for a in wanted(["table_L1", "figure_2"])] == ["figure_2", "table_L1"]
    unasked = ["figure_5", "table_1", "table_C1"]  # Figure L.3 and Table 4 beside other numbers of the paper
    assert wanted([]) == [a for a in ANALYSES.values() if a.name not in unasked]
    assert [a.name for a in wanted(unasked)] == unasked


def test_a_wrong_name_is_told_with_its_neighbour():
    with pytest.raises(ValueError, match=r"no analysis is named figure_33; did you mean figure_3\? .*table_L3"):
        wanted(["figure_33"])


def test_every_figure_has_a_caption():
    assert [a.name for a in ANALYSES.values() if bool(a.draw) != bool(a.shows)] == []
