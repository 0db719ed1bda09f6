"""The published numbers as data, the rows of Table 3 that they determine, and verify."""

import json
from statistics import NormalDist

import numpy as np
import pytest

from modelsoups.cli import commands, verify
from modelsoups.data.imagenet import metadata
from modelsoups.disk import paths
from modelsoups.published import reruns, tables

RESULTS = paths.ASSETS / "released" / "released_models_results.jsonl"


def status(*argv):
    try:
        commands.main(list(argv))
    except SystemExit as end:
        return end.code
    return 0


def test_best_and_second_best_follow_from_the_released_accuracies():
    rows = {row.row: row for row in tables.table_3_from_released()}
    assert (rows["best"].model, rows["second_best"].model) == ("model_43", "model_44")
    assert (round(rows["best"].imagenet, 2), round(rows["best"].shifts, 2)) == (80.39, 47.97)
    assert (round(rows["second_best"].imagenet, 2), rows["second_best"].paper) == (79.89, (79.89, 43.87))
    assert tables.greedy_ingredients()[:2] == (43, 44)
    assert len(tables.released_models()) == 72
    assert tables.released_models()[4].accuracy == tables.released_models()[5].accuracy


def test_report_makes_table_3_of_the_released_results_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands.main(["report", "experiment=released"])
    assert "Greedy soup" in capsys.readouterr().out
    table = (tmp_path / "results/released/table_3.csv").read_text().splitlines()
    assert "Greedy soup,,81.03,81.03,+0.00,50.86,50.75,+0.11,69.55,64.20,47.77,44.90,27.89" in table
    assert "Best individual model,model_43,80.39,80.38,+0.01,47.97,47.83,+0.14,68.44,60.63,44.51,42.62,23.64" in table
    assert [line.split(",")[0] for line in table[1:]] == [
        "LP initialization", "Best individual model", "Second best model", "Uniform soup", "Greedy soup", "Ensemble",
        "Learned soup (by tensor; authors' code)",
    ]  # fmt: skip
    assert table[-1] == "Learned soup (by tensor; authors' code),,81.38,,,,,,,,,,"
    assert "no model was evaluated here" in (tmp_path / "results/released/index.html").read_text(encoding="utf-8")
    commands.main(["report", "experiment=released"])
    assert "report: complete" in capsys.readouterr().out


def test_verify_of_the_released_results_agrees_in_full(capsys):
    assert status("verify", str(RESULTS)) == 0
    assert "504 of 504 accuracies agree" in capsys.readouterr().out


def test_verify_names_the_model_and_set_of_one_changed_accuracy(tmp_path, capsys):
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    changed = next(row for row in rows if row["model_name"] == "model_32")
    changed["ObjectNet"] -= 0.0084
    file = tmp_path / "measured.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert status("verify", str(file)) == 1
    said = capsys.readouterr().out
    assert "503 of 504 accuracies agree" in said
    assert "model_32 on objectnet: measured " in said
    assert "-0.84 points, tolerance 0.83" in said
    changed["ObjectNet"] += 0.0002
    file.write_text(json.dumps(changed) + "\n")
    assert status("verify", str(file)) == 0
    assert "measured models: 1 of 72" in capsys.readouterr().out


def test_tolerances_follow_from_the_model_of_noise():
    # val: sqrt(0.005 / 50,000) = 0.0316 points; objectnet: 0.0519 and 0.18 points, independent.
    assert reruns.deviation("val") == pytest.approx(0.031623, abs=1e-6)
    assert reruns.deviation("objectnet") == pytest.approx(0.187325, abs=1e-5)
    z = NormalDist().inv_cdf(1 - 0.005 / 504 / 2)  # Bonferroni over 504 comparisons at 0.5%, two-sided: 4.42
    assert reruns.tolerance("val", 72) / reruns.deviation("val") == pytest.approx(z)
    for name, spec in metadata.SETS.items():
        assert name not in reruns.IMAGES or name == "holdout" or spec.images == reruns.IMAGES[name]
    noise = np.random.default_rng(0).standard_normal((1000, 72, 7))
    limit = reruns.largest_distance(7, 72)
    accepted = (np.abs(noise).max((1, 2)) <= z) & ((noise**2).sum(2).max(1) <= limit)
    assert 0.98 <= accepted.mean() <= 1.0


def test_verify_accepts_the_independent_reruns():
    # Each set's differences in a public rerun of all 72 models: the largest (points) and the root mean square.
    rerun = {"holdout": (0.1116, 0.035), "val": (0.0640, 0.025), "v2": (0.1401, 0.066), "r": (0.1534, 0.059)}
    rerun |= {"objectnet": (0.5007, 0.181), "a": (0.2267, 0.081)}
    accuracies = {}
    for number, model in enumerate(tables.released_models()):
        share = {}
        for place, (name, (largest, usual)) in enumerate(rerun.items()):
            points = largest if place == number else usual * (-1) ** (number + place)
            share[name] = model.accuracy[name] + points / 100
        accuracies[number] = share
    comparisons = verify.compare(accuracies)
    assert len(comparisons) == 432
    assert all(c.agrees for c in comparisons)
    assert not verify.distant(comparisons)


def test_verify_rejects_every_other_model():
    released = tables.released_models()
    missed = []
    for a in released:
        for b in released:
            comparisons = verify.compare({a.index: b.accuracy})
            if all(c.agrees for c in comparisons) and not verify.distant(comparisons):
                missed.append((a.index, b.index))
    assert missed == sorted([*((i, i) for i in range(72)), (4, 5), (5, 4)])  # 4 and 5 are the same model


def test_verify_says_that_a_null_is_not_available(tmp_path, capsys):
    file = tmp_path / "measured.jsonl"
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    rows = [{**row, "ImageNetA": None} for row in rows]
    rows[3]["ObjectNet"] = None
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert status("verify", str(file)) == 0
    said = capsys.readouterr().out
    assert "data sets not available: a\nother accuracies not available: 1 (shown as -)\n" in said
    assert "431 of 431 accuracies agree" in said
    file.write_text('{"kind": "individual", "row": "003", "dataset": "val", "accuracy": null}\n')
    assert status("verify", str(file)) == 1
    assert "has no accuracy of a released model" in capsys.readouterr().err


def test_verify_reads_per_cent_and_a_reports_results(tmp_path, capsys):
    model = tables.released_models()[43]
    lines = [
        {"kind": "individual", "row": "043", "dataset": "val", "n": 50000, "accuracy": model.accuracy["val"]},
        {"soup": "greedy", "coefficients": {}},
        {"model_name": "model_44.pt", "ImageNetA": 100 * tables.released_models()[44].accuracy["a"]},
    ]
    file = tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = verify.read(file)
    assert set(found) == {43, 44}
    assert all(c.agrees for c in verify.compare(found))
    capsys.readouterr()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "has no accuracy of a released model"),
        ("{", "line 1 is not valid JSON"),
        ('{"model_name": "model_3", "ImageNet": "high"}\n', "line 1: val is 'high'; expected an accuracy"),
        ('{"model_name": "model_3", "ImageNet": NaN}\n', "line 1: val is nan"),
        ('{"model_name": "model_72", "ImageNet": 0.5}\n', "has no accuracy of a released model"),
    ],
)
def test_verify_refuses_other_files(tmp_path, content, says, capsys):
    file = tmp_path / "measured.jsonl"
    file.write_text(content)
    assert status("verify", str(file)) == 1
    assert says in capsys.readouterr().err
    assert status("verify", str(tmp_path / "no.jsonl")) == 1
    assert "no.jsonl: no such file" in capsys.readouterr().err


def test_our_greedy_soup_of_the_released_models_is_set_beside_the_authors(tmp_path):

    def said(*models):
        names = tuple(f"{m:03}" for m in models)
        return verify.greedy(names)

    assert said(43, 44, 32, 47, 50) == "greedy soup: models 43, 44, 32, 47, 50, the same as in the authors' greedy soup"
    assert said(43, 44).startswith("greedy soup: models 43, 44; the authors' soup: 43, 44, 32, 47, 50")
