"""The labels of Figure 1."""

from dataclasses import replace

import pytest
from hand_report import evidence, numbers_of, row
from matplotlib.figure import Figure

from modelsoups.report import plotting
from modelsoups.report.figure_1 import _label, figure_1
from modelsoups.soup.coefficients import Soup


def test_every_point_is_labelled_once_and_in_the_order_given():
    axes = Figure().subplots()
    axes.set(xlim=(0, 10), ylim=(0, 10))
    points = {name: (1.0, 2.0 + i) for i, name in enumerate("gfedcba")}  # on the left: below the points
    _label(axes, {**points, "right": (9.0, 5.0), "lower": (9.0, 4.0)})
    assert [text.get_text() for text in axes.texts] == ["lower", "right", *"gfedcba"]


@pytest.mark.parametrize(("members", "paths"), [(2, ["best model", "greedy soup"]), (1, ["best model"])])
def test_a_greedy_soup_of_one_model_has_no_second_path(members, paths):
    base = evidence()
    names = ("000", "001")[:members]
    soup = Soup("greedy", names, ("a" * 64, "b" * 64)[:members], {"*": [1 / members] * members})
    rows = {**base.rows, "wise_ft_greedy_0.5": row("wise_ft_greedy_0.5", 55, 7, 12, "interpolation")}
    rows["greedy"] = replace(rows["greedy"], soup=soup)
    with plotting.style(math=False):
        texts = [text.get_text() for text in figure_1(numbers_of(evidence(rows=rows))).axes[0].texts]
    assert [text for text in texts if text.startswith("WiSE-FT")] == [f"WiSE-FT of the {path}" for path in paths]
