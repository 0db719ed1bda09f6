"""Pictures of how a soup was chosen."""

from pathlib import Path

import pytest
from test_choosing import holdout, states

from modelsoups import soup
from modelsoups.soup.trace import figure_of_trace


def test_the_trace_as_a_picture(tmp_path: Path) -> None:
    data = holdout(4, batch_size=1)
    chosen = soup.greedy(states([[1, 1, 1, 1], [1, 1, 1, -9], [1, -1, 1, 1]]), data)
    for name in ("a.png", "a.svg", "a.pdf"):
        soup.plot_trace(chosen, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    axes = figure_of_trace(chosen).axes[0]
    assert axes.lines[0].get_ydata().tolist() == [100.0] * 3
    drawn = {marks.get_label(): marks.get_offsets().tolist() for marks in axes.collections}
    assert drawn == {"Kept": [[0, 100], [1, 100]], "Rejected early": [[2, 100]]}
    with pytest.raises(ValueError, match="uniform has no decisions"):
        soup.plot_trace(soup.uniform(states([[1], [2]])), tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"expected a name ending in \.png"):
        soup.plot_trace(chosen, tmp_path / "b.txt")


def test_a_candidate_with_a_score_is_drawn_where_it_was_left_out() -> None:
    """Scores 3, then the means 2 and 2.5 of the candidates with 1 and 2: both below 3."""
    chosen = soup.greedy(states([[3], [1], [2]]), lambda state: float(state["margin"]))
    axes = figure_of_trace(chosen).axes[0]
    drawn = {marks.get_label(): marks.get_offsets().tolist() for marks in axes.collections}
    assert drawn == {"Kept": [[0, 3]], "Left out": [[1, 2.5], [2, 2]]}
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["state 0", "state 2", "state 1"]


def test_a_learned_soup_shows_its_loss() -> None:
    chosen = soup.learned(states([[1, 2], [2, -1]]), holdout(2), epochs=4)
    line = figure_of_trace(chosen).axes[0].lines[0]
    assert line.get_ydata().tolist() == [step["loss"] for step in chosen.trace]
