"""Soups newer than the paper: the numbers of their authors, and where they are shown."""

from pathlib import Path

import pytest

from modelsoups.published import tables
from modelsoups.published.later import later_soups
from modelsoups.report.released_results import result_lines
from modelsoups.report.table_3 import label_of
from modelsoups.soup.methods import METHODS

ROOT = Path(__file__).parents[2]


def test_the_reference_is_of_the_same_models_as_the_papers() -> None:
    """The greedy soup beside it is the released one: 81.026%."""
    mehl = later_soups()["mehl"]
    assert mehl.imagenet == 81.62
    assert mehl.greedy == pytest.approx(100 * tables.released_rows()["greedy"]["val"], abs=0.005)
    assert "81.62% on ImageNet" in mehl.note
    assert f"{mehl.imagenet}%" in (ROOT / "docs/soup.md").read_text()
    assert f"{mehl.imagenet}%" in (METHODS["mehl"].__doc__ or "")


def test_the_rows_are_methods_and_said_not_to_be_in_the_paper() -> None:
    assert list(later_soups()) == ["mehl", "radin", "soce"]
    for row in later_soups():
        assert row in METHODS
        assert tables.printed(row) is None
        assert label_of(row).endswith(" (not in the paper)")


def test_the_report_of_the_released_results_has_the_number_beside() -> None:
    about = result_lines("released", {"batch_size": 512})[0]["experiment"]
    assert about["notes"][-1] == later_soups()["mehl"].note
