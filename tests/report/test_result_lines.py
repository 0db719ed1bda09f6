"""The lines of results.jsonl."""

import json

import pytest
from hand_report import evidence, numbers_of

from modelsoups.report.numbers import MEAN


def test_greedy_against_best_is_paired():
    test, mean = numbers_of(evidence()).headline
    # the 10 images from 60 to 69 are greedy's alone: exact two-sided binomial 2 / 2**10
    assert test.value == pytest.approx(0.1)
    assert test.p == pytest.approx(2 / 1024)
    assert mean.value == pytest.approx((1 / 10 + 1 / 20) / 2)
    assert mean.on == MEAN


def test_results_jsonl_holds_every_accuracy_and_nothing_of_time_or_place():
    lines = numbers_of(evidence(provenance={"time": "now", "machine": "here"})).lines
    greedy = next(x for x in lines if x.get("row") == "greedy" and x["dataset"] == "test")
    assert (greedy["correct"], greedy["n"], greedy["kind"]) == (70, 100, "soup")
    soup = next(x for x in lines if x.get("soup") == "greedy")
    assert soup["coefficients"] == {"*": [0.5, 0.5]}
    text = json.dumps(lines)
    assert "now" not in text
    assert "here" not in text
    assert text == json.dumps(numbers_of(evidence()).lines)
