"""The report of a text run: its score in words and numbers, no columns without numbers, Table 5."""

import json
import re

import pytest
from hand_text import World, config, correlation, evidence, numbers_of, text_of

from modelsoups.disk import storage
from modelsoups.published import glue
from modelsoups.report import (
    beside_glue,
    claims,
    experiment_sections,
    figure_1,
    figures,
    files,
    glue_runs,
    plotting,
    table_3,
)
from modelsoups.report.numbers import MEAN, Numbers
from modelsoups.report.result_lines import result_lines

NAMES = {"accuracy": "accuracy", "accuracy_f1": "mean of accuracy and F1", "matthews": "Matthews correlation"}


def sections_of(numbers):
    return {s.title: s for s in experiment_sections.sections(numbers, claims.check(numbers), None)}


def words_of(section):
    """All words of a section but those of its figures."""
    words = [section.title, section.sentence, section.origin]
    for content in section.contents:
        if isinstance(content, str):
            words.append(content)
        elif hasattr(content, "sentences"):
            words += content.sentences
        elif hasattr(content, "facts"):
            words += [word for fact in content.facts for word in fact]
        elif hasattr(content, "rows"):
            words += [*content.head, content.caption, *(title for title, _ in content.groups)]
            for cell in (cell for row in content.rows for cell in row):
                words += [cell] if isinstance(cell, str) else [cell.text, cell.tip]
        else:
            words.append(content.caption)
    return " ".join(words)


def written(folder, numbers, page=True):
    folder.mkdir(parents=True)
    storage.write_jsonl(folder / "results.jsonl", numbers.lines)
    storage.write_text(folder / "provenance.json", json.dumps(numbers.provenance))
    if page:
        files.write_report(folder, {})
    return folder


def test_the_lines_hold_the_tasks_score_with_interval_and_words():
    world = World("matthews")
    numbers = numbers_of("matthews")
    about = numbers.lines[0]["experiment"]
    assert about["score"]["name"] == "Matthews correlation"
    line = next(x for x in numbers.lines if x.get("row") == "000" and x["dataset"] == "test")
    predictions_N = world.logits("test", world.states[0]).argmax(dim=1)
    assert line["accuracy"] == pytest.approx(correlation(world.labels["test"].numpy(), predictions_N.numpy()))
    assert (line["n"], line["correct"]) == (90, 0)
    assert -1 <= line["low"] < line["accuracy"] < line["high"] <= 1
    row = world.row("000", "individual", [world.states[0]])
    assert (line["low"], line["high"]) == world.task.interval(row.outcomes["test"])
    assert json.dumps(numbers.lines) == json.dumps(result_lines(*evidence("matthews")))


def test_an_accuracy_keeps_its_count():
    line = next(x for x in numbers_of("accuracy").lines if x.get("row") == "best" and x["dataset"] == "test")
    assert line["accuracy"] == line["correct"] / line["n"]
    assert line["correct"] > 0


def test_greedy_chooses_by_the_score_and_its_steps_show_it():
    """Points are the score times the number of examples: the trace, in hundredths, shows the score."""
    for key in NAMES:
        task, found = evidence(key)
        steps = found.rows["greedy"].soup.trace
        last = found.rows["greedy"].outcomes["holdout"]
        assert steps[-1]["best"] / steps[-1]["n"] == pytest.approx(task.score(last))
        assert task.score(last) >= task.score(found.rows["best"].outcomes["holdout"])
        best = max(task.score(row.outcomes["holdout"]) for row in found.individuals.values())
        assert task.score(found.rows["best"].outcomes["holdout"]) == best
        table = sections_of(Numbers(result_lines(task, found), found.provenance))["Greedy soup"].contents[1]
        assert table.rows[0][2].text == f"{100 * best:.2f}"


@pytest.mark.parametrize("key", NAMES)
@pytest.mark.parametrize("shifts", [False, True])
def test_words_and_columns_fit_texts(tmp_path, key, shifts):
    """No images, no top-1, no accuracy where it is another score, and no column of shifts without shifts."""
    numbers = numbers_of(key, shifts=shifts)
    folder = written(tmp_path / "run", numbers)
    made = sections_of(numbers)
    text = " ".join(map(words_of, made.values()))
    with plotting.style(math=False):
        for draw in (figure_1.figure_1, figures.figure_b1, figures.greedy_trace, figures.each_shift):
            drawn = text_of(numbers, draw)
            assert NAMES[key] in drawn or draw is figures.each_shift
            text += drawn
    for name in ("summary.txt", "table_3.md", "table_3.tex"):
        assert NAMES[key].lower() in (folder / name).read_text().lower()
    for name in ("summary.txt", "claims.md", "table_3.md", "ingredients.md", "table_3.tex", "table_5.csv"):
        text += (folder / name).read_text()
    assert NAMES[key] in text
    assert not re.search("image|top-1|imagenet|mixup|weight decay|augmentation", text, re.IGNORECASE)
    if key != "accuracy":
        rest = re.sub(re.escape(NAMES[key]), "", text, flags=re.IGNORECASE)
        assert not re.search("accuracy", rest, re.IGNORECASE)
        assert "%" not in text.replace("95%", "").replace("% needs", "")
    assert bool(re.search("shift", text, re.IGNORECASE)) == shifts
    assert "not available" not in text
    assert not (folder / "contact.png").exists()
    assert (folder / "table_sets.tex").exists() == shifts
    for section in made.values():
        for table in (c for c in section.contents if hasattr(c, "rows")):
            assert all(len(row) == len(table.head) for row in table.rows)
            assert sum(span for _, span in table.groups) in (0, len(table.head))
            columns = zip(*table.plain()[1:], strict=True)
            assert all(any(column) for column in columns), (section.title, table.plain()[0])


def test_shifts_of_texts_are_averaged_with_the_variance_of_the_score():
    task, found = evidence("matthews", shifts=True)
    numbers = Numbers(result_lines(task, found), found.provenance)
    mean = numbers.rows["best"].mean
    outcomes_N = found.rows["best"].outcomes["reviews"]
    assert mean.accuracy == pytest.approx(task.score(outcomes_N))
    assert mean.high - mean.accuracy == pytest.approx(1.959964 * task.variance(outcomes_N) ** 0.5)
    assert {d.on for d in numbers.headline} == {"test", MEAN}


def test_the_standard_error_of_the_hold_out_is_printed(tmp_path):
    task, found = evidence("accuracy_f1")
    numbers = Numbers(result_lines(task, found), found.provenance)
    error = 100 * task.variance(found.rows["best"].outcomes["holdout"]) ** 0.5
    sentence = (
        f"Hold-out: 70 examples; the standard error of the best individual model's score there is {error:.2f} points"
    )
    assert sentence in (written(tmp_path / "run", numbers) / "summary.txt").read_text()
    assert sentence in words_of(sections_of(numbers)["The answer"])


def test_chosen_on_the_test_set_itself_the_report_says_so(tmp_path):
    numbers = numbers_of("accuracy", both=False, chosen_on="test")
    made = sections_of(numbers)
    headline = words_of(made["The answer"])
    assert "both chosen on the test set itself" in headline
    assert "scores of chosen models are too high" in headline
    assert "standard error" not in headline
    assert "Everything was chosen on the test set itself" in words_of(made["Scores"])
    assert [p.name for p in made["Figures"].contents] == ["figure_B1", "figure_shifts"]
    head = ["Method", "Paper: BERT-base on CoLA", "Chosen on the test set", "Minus paper"]
    assert made["Table 5"].contents[0].head == head
    assert "chosen on the test set itself" in (written(tmp_path / "run", numbers) / "summary.txt").read_text()


def test_both_readings_stand_beside_the_papers_cell():
    numbers = numbers_of("matthews")
    table = beside_glue.table(numbers)
    assert (table.head[2], table.head[4]) == ("Chosen on the hold-out", "Chosen on the test set")
    cells = {row[0]: row for row in table.rows}
    assert [cells[label][1] for label in ("Best individual model", "Uniform soup", "Greedy soup")] == [
        "59.1", "0.0", "59.1",
    ]  # fmt: skip
    for place, names in ((2, ("best", "uniform", "greedy")), (4, ("best_validation", "uniform", "greedy_validation"))):
        for row, name in zip(table.rows, names, strict=True):
            ours = numbers.rows[name].results["test"]
            assert row[place] == f"{100 * ours.accuracy:.2f} [{100 * ours.low:.2f}, {100 * ours.high:.2f}]"
            difference = 100 * ours.accuracy - float(row[1])
            outside = not ours.low <= float(row[1]) / 100 <= ours.high
            assert row[place + 1] == f"{difference:+.2f}" + ("*" if outside else "")
    assert cells["Uniform soup"][3].endswith("*")  # our uniform soup is far from 0
    assert numbers.difference("greedy_validation", "best_validation", "test") is not None
    assert numbers.difference("greedy_validation", "best", "test") is None
    said = words_of(sections_of(numbers)["Table 5"])
    assert "10 of 20 cells, the uniform soup in none; by the numbers of Table J.1 this holds" in said


def test_a_model_that_the_paper_does_not_have():
    numbers = numbers_of("accuracy", config=config("package:made/minilm", "glue_sst2", limit=4000))
    table = beside_glue.table(numbers)
    assert {row[1] for row in table.rows} == {"not in the paper"}
    assert "Minus paper" not in table.head
    assert {len(row) for row in table.rows} == {len(table.head)}
    assert table_3.wide(numbers)[0] == ["Method", "made validation: accuracy", "Gain: test"]
    said = words_of(sections_of(numbers)["Table 5"])
    assert "The paper has no scores of package:made/minilm on glue_sst2." in said
    assert "at most 4,000 examples" in said


def test_the_papers_slips_are_noted_beside_their_cells():
    said = words_of(sections_of(numbers_of("matthews", config=config("t5-base", "glue_cola")))["Table 5"])
    assert "differ by +1.4" in said
    assert "409" not in said


def test_the_sets_and_their_notes_are_shown():
    said = words_of(sections_of(numbers_of())["The data"])
    assert "made train 290 200 90" in said
    assert "made train: 2 of 290 examples repeat" in said


def test_claims_are_those_on_texts():
    found = claims.check(numbers_of("matthews"))
    assert found[0].verdict == "holds"
    assert [v.text for v in found[1:]] == [claim.text for claim in claims.TEXT_CLAIMS]
    assert not any("distribution" in v.text or "shift" in v.text for v in found)


def test_a_table_over_the_runs_side_by_side(tmp_path):
    assert not glue_runs.write(tmp_path)
    runs = {
        "a": numbers_of("matthews"),
        "b": numbers_of("accuracy", config=config("some/minilm", "glue_rte")),
        "c": numbers_of("accuracy", both=False, chosen_on="test", config=config("t5-small", "glue_rte")),
        "images": numbers_of("accuracy", config={**config(), "task": "images"}),
    }
    for name, numbers in runs.items():
        written(tmp_path / name, numbers, page=False)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/results.jsonl").write_text("{}\n")
    assert glue_runs.write(tmp_path)
    head, *rows = [line.split(",") for line in (tmp_path / "table_j1.csv").read_text().splitlines()]
    assert head[:4] == ["Model", "Data", "Score", "Chosen on"]
    chosen = [(row[1], row[3]) for row in rows]
    assert chosen == [("glue_cola", "hold-out"), ("glue_cola", "test set"), ("glue_rte", "hold-out"),
                      ("glue_rte", "test set"), ("glue_rte", "test set")]  # fmt: skip
    runs = glue_runs.finished(tmp_path)
    held = [[r.rows[m].accuracy("test") for m in ("best", "uniform", "greedy")] for r in runs[:2]]
    text = (tmp_path / "table_j1.md").read_text()
    assert f"Chosen on the hold-out: {glue.count(held).text}" in text
    assert "in 10 of 20 cells" in text
    first = text
    assert glue_runs.write(tmp_path)
    assert (tmp_path / "table_j1.md").read_text() == first
