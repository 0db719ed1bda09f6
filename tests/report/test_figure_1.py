"""The labels of Figure 1."""

from matplotlib.figure import Figure

from modelsoups.report.figure_1 import _label


def test_every_point_is_labelled_once_and_in_the_order_given():
    axes = Figure().subplots()
    axes.set(xlim=(0, 10), ylim=(0, 10))
    points = {name: (1.0, 2.0 + i) for i, name in enumerate("gfedcba")}  # on the left: below the points
    _label(axes, {**points, "right": (9.0, 5.0), "lower": (9.0, 4.0)})
    assert [text.get_text() for text in axes.texts] == ["lower", "right", *"gfedcba"]
