"""The guide's table of formats and layouts is the rows of the tests with their owners' libraries."""

from pathlib import Path

import owners
import test_owners_files
import test_owners_folders
import test_owners_lora
import test_owners_runs

GUIDE = Path(__file__).parents[2] / "docs" / "soup.md"


def test_the_table_of_the_guide_is_that_of_the_tests() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    start = text.index(f"| {' | '.join(owners.HEAD)} |")
    table = text[start:].split("\n\n")[0] + "\n"
    assert table == owners.lines()


def test_every_row_has_a_test_that_runs() -> None:
    """A row's name is there once, and each is a parameter of the test of its module."""
    names = [row.cells[0] for row in owners.rows()]
    assert len(names) == len(set(names))
    run = []
    for test in (
        test_owners_files.test_the_soup_of_copies_is_the_model,
        test_owners_folders.test_the_soup_of_copies_is_the_model,
        test_owners_lora.test_peft_computes_with_the_soup_what_the_mean_computes,
        test_owners_runs.test_the_owner_loads_the_soup,
    ):
        (mark,) = test.pytestmark
        run += mark.args[1]
    assert run == owners.rows()
