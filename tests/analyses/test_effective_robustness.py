"""Effective robustness: of the authors' released accuracies, and of the report of a run."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from modelsoups.analyses import effective_robustness
from modelsoups.analyses.effective_robustness import ROBUSTNESS
from modelsoups.analyses.members import Unavailable
from modelsoups.analyses.rows import having, select
from modelsoups.disk import paths, storage
from modelsoups.published import tables
from modelsoups.published.timm_results import SAME_CLIP, baseline
from modelsoups.report import plotting, released_results
from modelsoups.report.claims import HOLDS, OPEN

RECIPE = {"batch_size": 512, "warmup_steps": 500, "clip": 1.0}
LINES = released_results.result_lines("released", RECIPE)


def bench(results=None, library="imagenet"):
    config = SimpleNamespace(name="released", recipe=RECIPE, data=SimpleNamespace(library=library))
    files = SimpleNamespace(results=results)
    return SimpleNamespace(experiment=SimpleNamespace(config=config), files=files, published=results is None)


@pytest.fixture(scope="module")
def rows():
    return json.loads(json.dumps(ROBUSTNESS.rows(bench())))


def figure(rows):
    with plotting.style():
        drawn = ROBUSTNESS.draw(rows)
        drawn.draw_without_rendering()
    return drawn


def test_the_sets_and_models_that_the_authors_released(rows):
    assert [row["set"] for row in having(rows, "fit")] == ["v2", "r", "sketch", "a"]
    names = ["initialization", "best", "uniform", "greedy", "ensemble", SAME_CLIP]
    assert [row["model"] for row in having(select(rows, set="r"), "model")] == names
    assert {len(row["run"]) for row in having(rows, "fit")} == {72}


def test_effective_robustness_is_the_accuracy_less_what_timms_models_predict(rows):
    """Against numpy's fit, for the greedy soup on ImageNet-R."""
    greedy = tables.released_rows()["greedy"]
    test_M, shift_M = np.array([(m.accuracy["val"], m.accuracy["r"]) for m in baseline("r")]).T
    slope, intercept = np.polyfit(np.log(test_M / (1 - test_M)), np.log(shift_M / (1 - shift_M)), 1)
    predicted = 1 / (1 + np.exp(-intercept - slope * np.log(test_M / (1 - test_M))))
    ours = 1 / (1 + (greedy["val"] / (1 - greedy["val"])) ** -slope * np.exp(-intercept))
    (row,) = select(rows, set="r", model="greedy")
    assert (row["test"], row["shift"]) == (greedy["val"], greedy["r"])
    assert row["predicted"] == pytest.approx(ours)
    effective = row["effective"]
    assert effective["value"] == pytest.approx(greedy["r"] - ours)
    assert effective["low"] < effective["value"] < effective["high"]
    assert row["below"] == pytest.approx(np.mean(shift_M - predicted < effective["value"]))


def test_soups_are_ahead_of_timms_fine_tune_under_shift_but_not_on_v2(rows):
    verdicts = {v.text: v.verdict for v in ROBUSTNESS.verdicts(rows)}
    assert len(verdicts) == 3 * 4
    for title, found in {"R": HOLDS, "Sketch": HOLDS, "A": HOLDS, "V2": OPEN}.items():
        assert (
            verdicts[f"The greedy soup is more accurate on ImageNet-{title} than its ImageNet accuracy predicts"]
            == found
        )
        more = f"The greedy soup has higher effective robustness on ImageNet-{title} than"
        assert verdicts[f"{more} timm's fine-tune of CLIP ViT-B/32"] == found
    assert verdicts[f"{more} the best individual model"] == OPEN


def test_the_table_has_the_published_numbers(rows):
    table = ROBUSTNESS.table(rows)
    assert {len(line) for line in table} == {7}
    cells = {tuple(line[:2]): line[2:4] for line in table}
    assert cells["ImageNet-R", "Greedy soup"] == ["81.03", "64.20"]
    assert cells["ImageNet-R", "timm's fine-tune of CLIP ViT-B/32"] == ["81.94", "55.85"]
    page = (Path(__file__).parents[2] / "docs/paper.md").read_text(encoding="utf-8")
    for model in ("Greedy soup", "timm's fine-tune of CLIP ViT-B/32"):  # the documentation has the same
        assert f"| its effective robustness | | {' | '.join(line[5] for line in table if line[1] == model)} |" in page
    assert ("ImageNet-A", "Line of 1,104 models of timm: slope 4.98, R² 0.95") in cells


def test_the_figure_has_a_panel_for_each_set(rows):
    panels = figure(rows).axes
    assert [panel.get_title() for panel in panels] == ["ImageNet-V2", "ImageNet-R", "ImageNet-Sketch", "ImageNet-A"]
    assert "80" in [label.get_text() for label in panels[0].get_xticklabels()]


def report(folder, change=lambda line: [line]):
    """Write the files of a run's report, whose lines `change` replaces."""
    storage.write_jsonl(folder / paths.RESULTS, [new for line in LINES for new in change(line)])
    storage.write_json(folder / paths.PROVENANCE, {})
    return bench(folder)


def test_a_run_shows_the_sets_of_its_report(tmp_path):
    def with_real(line):
        if line.get("dataset") != "val":
            return [] if line.get("dataset") == "a" else [line]
        return [line, {**line, "dataset": "real", "accuracy": 0.87, "n": 46837, "correct": 40748}]

    rows = ROBUSTNESS.rows(report(tmp_path, with_real))
    assert [row["title"] for row in having(rows, "fit")] == [
        "ImageNet-V2",
        "ImageNet-R",
        "ImageNet-Sketch",
        "ImageNet ReaL",
    ]
    (row,) = select(rows, set="real", model="greedy")
    assert row["shift"] == 0.87
    assert row["effective"]["high"] - row["effective"]["low"] < 0.01


def test_an_accuracy_of_zero_has_no_place_in_the_figure_and_one_in_the_table(tmp_path):
    def zero(line):
        return (
            [{**line, "accuracy": 0.0, "correct": 0}]
            if line.get("row") == "uniform" and line["dataset"] == "a"
            else [line]
        )

    rows = ROBUSTNESS.rows(report(tmp_path, zero))
    assert next(line for line in ROBUSTNESS.table(rows) if line[:2] == ["ImageNet-A", "Uniform soup"])[3] == "0.00"
    drawn = figure([row for row in rows if row["set"] == "a"])
    labels = [artist.get_label() for artist in drawn.axes[0].collections]
    assert "Greedy soup" in labels
    assert "Uniform soup" not in labels


def test_without_imagenet_or_a_report_it_says_what_is_missing(tmp_path):
    with pytest.raises(Unavailable, match=r"needs ImageNet and its shifts, but data\.library=iconnet"):
        ROBUSTNESS.rows(bench(library="iconnet"))
    with pytest.raises(Unavailable, match="run modelsoups report first"):
        ROBUSTNESS.rows(bench(tmp_path))
    alone = report(tmp_path, lambda line: [] if line.get("dataset") in effective_robustness.SHIFTED else [line])
    with pytest.raises(Unavailable, match="accuracies on ImageNet and one of v2, r, sketch, a, real"):
        ROBUSTNESS.rows(alone)
