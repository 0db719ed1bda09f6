"""Models are found by what made them, and a soup's measurement is that of its mixed weights."""

import pickle

import numpy as np
import pytest

from modelsoups.analyses.members import Unavailable
from modelsoups.analyses.points import Point, between
from modelsoups.experiment.ingredients import load_weights
from modelsoups.stats.scores import accuracy
from modelsoups.weights import state_dicts


def test_what_is_measured_of_a_soup_is_its_accuracy(bench):
    whole = bench.whole()
    one, two, _ = bench.ingredients("random")
    (measured,) = whole.measure([between(one, two, 0.25)], "test", ["v2"])
    state = state_dicts.interpolate(load_weights(one), load_weights(two), 0.25)
    labels = whole.logits(one, "v2").labels_N
    assert measured["v2"].accuracy == accuracy(whole.experiment.logits.forward("v2", state), labels)


def test_models_are_found_by_their_recipe(bench):
    assert bench.find("lp", lr=1e-3, aug="strong").name == "standard_lp/002"
    assert bench.find("lp", lr=1e-3, aug="medium", sam=0.05, seed=1).name == "sam/002"
    assert bench.find("zeroshot", lr=1e-3, aug="minimal", seed=1).name == "standard_zs/002"
    with pytest.raises(Unavailable, match=r"the analysis needs a model from the lp head with .*lr=0\.5, aug=fix"):
        bench.find("lp", lr=0.5, aug="fix")
    with pytest.raises(Unavailable, match=r"analyse\.pools\.nobody"):
        bench.pool("nobody")


def test_points_are_told_apart_by_weights_and_coefficients(bench):
    one, two, _ = bench.ingredients("random")
    points = [Point((one, two), (0.5, 0.5)), Point((one, two), (0.25, 0.75)), Point((two, one), (0.5, 0.5))]
    assert len({str(point.key()) for point in points}) == 3
    assert Point.uniform([one, two]).key() == points[0].key()


def test_a_measurement_has_another_file_when_another_module_makes_it(bench):
    first = bench.kept_path(["key"], "modelsoups.stats.calibration")
    assert first == bench.kept_path(["key"], "modelsoups.stats.calibration")
    assert len({first, bench.kept_path(["key"]), bench.kept_path(["other"], "modelsoups.stats.calibration")}) == 3


def test_a_worker_gets_the_bench_without_what_it_has_loaded(bench):
    one = bench.ingredients("random")[0]
    assert bench.weights(one) is bench.weights(one)
    again = pickle.loads(pickle.dumps(bench))
    assert again.tests == bench.tests
    assert again.weights(one) is not bench.weights(one)


def test_accuracy_under_shift_is_the_mean_of_all_shifts(bench):
    measures = bench.individual(bench.ingredients("random")[0])
    accuracies = bench.accuracies(measures)
    assert accuracies["test"] == measures["test"].accuracy
    assert accuracies["shifts"] == pytest.approx(np.mean([measures[name].accuracy for name in bench.shifts]))
