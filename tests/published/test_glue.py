"""The paper's text results: Table J.1, Table 5, the claim of appendix J.5, and the slips."""

import pytest

from modelsoups.published import glue
from modelsoups.published.tables import paper_rows


def test_the_papers_own_table_bears_out_the_claim_of_appendix_j5():
    counts = glue.paper_counts()
    assert (counts.cells, counts.greedy_better, counts.uniform_better) == (20, 10, 0)
    assert glue.claim_holds(counts)
    assert counts.uniform_equal == 1  # a slip: "worse on all"
    assert counts.greedy_equal == 10
    better = [c.title for c in glue.cells() if c.greedy > c.best]
    assert better[:3] == ["BERT-base on RTE", "BERT-base on SST-2", "BERT-large on SST-2"]
    assert all(c.greedy > c.uniform for c in glue.cells())


def test_another_table_does_not_bear_it_out():
    scores = [(c.best, c.uniform, c.greedy) for c in glue.cells()]
    assert not glue.claim_holds(glue.count(scores[1:]))
    assert not glue.claim_holds(glue.count([(1.0, 2.0, 1.0), *scores[1:]]))
    assert glue.count([(1.0, 1.0, 2.0), (3.0, 4.0, 3.0)]) == glue.Counts(2, 1, 1, 1, 1)
    assert glue.count([(1.0, 1.0, 2.0)]).text == (
        "The greedy soup is better than the best individual model in 1 of 1 cells (0 equal), "
        "the uniform soup in 0 (1 equal)."
    )


def test_table_5_is_a_part_of_table_j1_and_one_of_its_differences_is_wrong():
    wrong = []
    for c in glue.cells():
        if c.model in glue.IN_TABLE_5:
            rows, column = paper_rows("table_5"), list(glue.DATA).index(c.data)
            name = glue.IN_TABLE_5[c.model]
            assert rows[f"{name} / Best individual model"][column] == c.best
            assert rows[f"{name} / Greedy soup"][column][0] == c.greedy
            if glue.printed_gain(c) != pytest.approx(c.greedy - c.best):
                wrong.append((c.title, glue.printed_gain(c), round(c.greedy - c.best, 1)))
        else:
            assert glue.printed_gain(c) is None
    assert wrong == [("T5-base on CoLA", 0.4, 1.4)]


@pytest.mark.parametrize(
    ("model", "data", "title"),
    [
        ("google-bert/bert-base-uncased", "glue_mrpc", "BERT-base on MRPC"),
        ("bert-large-uncased", "SST-2", "BERT-large on SST-2"),
        ("/models/t5-small/", "GLUE CoLA", "T5-small on CoLA"),
        ("google-t5/t5-large", "rte", "T5-large on RTE"),
        ("google/t5-v1_1-base", "glue_rte", None),
        ("bert-base-cased", "glue_rte", None),
        ("bert-base-uncased", "glue_qnli", None),
        ("package:sentences/minilm", "glue_mrpc", None),
    ],
)
def test_a_runs_model_and_data_find_their_cell(model, data, title):
    found = glue.cell(model, data)
    assert (None if found is None else found.title) == title


def test_the_cells_hold_what_the_paper_prints():
    found = glue.cell("t5-base", "cola")
    assert [found.score(row) for row in ("best", "uniform", "greedy", "ensemble")] == [58.8, 12.3, 60.2, None]


def test_slips_are_shown_where_they_matter():
    assert len(glue.slips()) == 4
    assert [text[:20] for text in glue.slips(glue.cell("t5-base", "cola"))] == ["Table 5 prints +0.4 "]
    assert glue.slips(glue.cell("bert-base-uncased", "cola")) == []
    assert "409" in glue.slips(glue.cell("bert-base-uncased", "mrpc"))[0]
    assert len(glue.slips(glue.cell("t5-base", "sst2"))) == 2
