"""The index of the paper names the parts of a report that show a figure or table of the paper."""

import re

from hand_report import evidence, numbers_of
from hand_text import config
from hand_text import numbers_of as numbers_of_texts

from modelsoups.analyses.registry import ANALYSES
from modelsoups.published import index
from modelsoups.report import experiment_sections, glue_runs, plotting
from modelsoups.report.sections import Picture, Table


def parts_of_reports():
    """The names of the files with a number of the paper, such as table_5, that reports of images and texts write."""
    names = {glue_runs.NAME}
    for numbers in (numbers_of(evidence()), numbers_of_texts(config=config())):
        with plotting.style(math=False):
            for section in experiment_sections.sections(numbers, [], None):
                names |= {c.name for c in section.contents if isinstance(c, (Picture, Table))}
    return {name for name in names if re.match(r"(figure|table)_[A-Za-z]?\d", name)}


def test_every_numbered_part_of_a_report_is_in_the_index_and_nothing_that_is_not_made():
    parts = parts_of_reports()
    assert parts == {"figure_1", "figure_B1", "table_3", "table_5", "table_j1"}
    assert {name for entry in index.entries() for name in entry.makes} == {*ANALYSES, *parts}
