"""Table 4: its columns, the paper's rows below ours, and sets with other labels for the test set's images."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from modelsoups.analyses import table_4_oracle
from modelsoups.analyses.table_4_oracle import TABLE_1, TABLE_4, TABLE_C1
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.stats.scores import Logits

COLUMNS = {"val": "ImageNet", "v2": "ImageNet-V2", "mean": "Mean of shifts", "real": "ImageNet ReaL"}


def rows():
    made = []
    for column, title in COLUMNS.items():
        for kind, accuracy in {"best": 0.5, "greedy_ensemble": 0.6, "greedy": 0.7, "oracle": 0.55}.items():
            made.append({"row": kind, "column": column, "title": title, "accuracy": accuracy, "bold": kind == "greedy"})
    estimate = {"value": 0.2, "low": 0.1, "high": 0.3}
    compared = [{"comparison": f"greedy - best, {name}", "test": estimate} for name in ("val", "v2", "mean")]
    return [*made, *compared, {"paper": "ImageNet"}]


def test_the_papers_rows_stand_below_ours_in_the_same_columns():
    table = TABLE_4.table(rows())
    assert table[0][1:] == ["ImageNet", "ImageNet-V2", "Mean of shifts", "ImageNet ReaL"]
    assert table[4] == ["Greedy soup", "70.00*", "70.00*", "70.00*", "70.00*"]
    by_label = {row[0]: row[1:] for row in table}
    assert by_label["Paper: Greedy soup"] == ["90.94", "84.22", "85.02", "91.20"]
    assert by_label["Paper: CoAtNet-7"] == ["90.88", "", "", ""]
    assert len(table) == 1 + 4 + 7


def test_other_data_are_not_compared_with_imagenet():
    """A shift of PACS has the name of one of ImageNet's: sketch."""
    mine = rows()[:-1]
    assert [row[0] for row in TABLE_4.table(mine)[1:]] == list(table_4_oracle.LABELS.values())
    assert len(TABLE_1.table(mine)) == 3
    assert TABLE_4.verdicts(mine) == TABLE_4.verdicts(rows())


def test_table_1_has_the_oracle_and_the_greedy_soup_in_two_columns():
    table = TABLE_1.table(rows())
    assert table[:3] == [
        ["Method", "ImageNet", "Mean of shifts"],
        ["Best model in hyperparameter search", "55.00", "55.00"],
        ["Greedy soup", "70.00", "70.00"],
    ]
    assert table[3:] == [
        ["Paper: ViT-G (Zhai et al., 2021)", "90.45", ""],
        ["Paper: CoAtNet-7", "90.88", ""],
        ["Paper: ViT-G (reevaluated)", "90.47", "82.06"],
        ["Paper: Best model in hyperparameter search", "90.78", "84.68"],
        ["Paper: Greedy soup", "90.94", "85.02"],
    ]
    assert TABLE_1.verdicts(rows()) == []  # Table 4 has them


def test_table_c1_has_the_rows_of_basic():
    table = TABLE_C1.table(rows())
    by_label = {row[0]: row[1:] for row in table}
    assert by_label["Paper: BASIC-L (zero-shot)"] == ["85.70", "80.60", "84.06", ""]
    assert by_label["Paper: Greedy soup"] == ["90.98", "84.63", "86.40", "91.03"]
    assert len(table) == 1 + 4 + 8
    assert {verdict.source for verdict in TABLE_C1.verdicts(rows())} == {"Table C.1"}


def test_the_oracle_claim_counts_sets_with_images_of_their_own():
    assert TABLE_4.verdicts(rows())[-1].numbers.startswith("2 of 2")


def test_other_labels_are_scored_from_the_test_sets_logits(monkeypatch):
    """Two models on three images, whose other labels weigh 1/2, 1/4, 1/4: right on 0 and 1, and on 2."""
    logits = {"000": torch.eye(3)[[0, 1, 0]], "001": torch.eye(3)[[1, 2, 2]]}
    members = [Ingredient(name, "", name, None) for name in logits]
    answers_N = torch.tensor([0, 1, 2])

    def score(dataset, logits_NC):
        correct_N = (logits_NC.argmax(1) == answers_N).numpy()
        return correct_N, np.array([0.5, 0.25, 0.25]) if dataset.title == "Multilabel" else None

    monkeypatch.setattr(table_4_oracle.relabelled, "score", score)
    both = Soup("greedy_ensemble", ("000", "001"), ("000", "001"), {"*": [0.5, 0.5]}, space="logits")
    one = Soup("best", ("000",), ("000",), {"*": [1.0]})
    monkeypatch.setattr(table_4_oracle, "choose", lambda bench, m, method: both if "ensemble" in method else one)
    titles = {"real": SimpleNamespace(title="ReaL"), "multilabel": SimpleNamespace(title="Multilabel")}

    class Sets(dict):
        def relabelled(self):
            return list(self)

    bench = SimpleNamespace(
        experiment=SimpleNamespace(sets=Sets(titles)),
        test="val",
        logits=lambda member, name: Logits(name, logits[member.id], answers_N),
    )
    found = {
        (r["column"], r["row"]): r
        for r in table_4_oracle._relabelled(bench, dict.fromkeys(table_4_oracle.METHODS, members))
    }
    assert found["real", "best"]["accuracy"] == pytest.approx(2 / 3)
    assert found["multilabel", "best"]["accuracy"] == pytest.approx(0.75)
    assert found["real", "oracle"]["model"] == found["multilabel", "oracle"]["model"] == "000"
    assert found["real", "best"]["bold"]
    assert not found["multilabel", "best"]["bold"]  # the tests behind the marks are for equal weights
    assert len(found) == 8
