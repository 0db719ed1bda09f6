"""The line through logits and effective robustness, worked out by hand."""

import math

import numpy as np
import pytest

from modelsoups.stats.intervals import z_value
from modelsoups.stats.logit_fit import LogitFit, Place, expit, logit


def shares(*logits):
    return list(map(expit, logits))


# Logits x = -1, -1, 1, 1 and y = -2.5, -0.5, 0.5, 2.5: slope (2.5 + 0.5 + 0.5 + 2.5) / 4, and 1 from the line each
HAND = LogitFit.of(shares(-1, -1, 1, 1), shares(-2.5, -0.5, 0.5, 2.5))


def test_a_logit_and_its_inverse():
    assert logit(0.5) == 0
    assert logit(0.75) == pytest.approx(math.log(3))
    assert expit(logit(0.123)) == pytest.approx(0.123)
    for share in (0, 1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="expected a number between 0 and 1"):
            logit(share)


def test_the_line_by_hand():
    assert (HAND.slope, HAND.models, HAND.squares) == (pytest.approx(1.5), 4, pytest.approx(4))
    assert (HAND.intercept, HAND.mean) == (pytest.approx(0), pytest.approx(0))
    assert HAND.spread == pytest.approx(math.sqrt(4 / 2))
    assert HAND.explained == pytest.approx(1 - 4 / 13)  # 13 = 2 * 2.5² + 2 * 0.5²
    assert HAND.predict(0.5) == pytest.approx(0.5)
    assert HAND.predict(expit(2)) == pytest.approx(expit(3))


def test_points_on_a_line_give_the_line_and_no_effective_robustness():
    fit = LogitFit.of(shares(-2, 0.5, 1), shares(-3, 2, 3))
    assert (fit.slope, fit.intercept) == (pytest.approx(2), pytest.approx(1))
    assert (fit.spread, fit.explained) == (pytest.approx(0, abs=1e-12), pytest.approx(1))
    value, low, high = fit.effective(Place(expit(-0.5), expit(0), 100, 100))
    assert value == pytest.approx(0)
    assert low == pytest.approx(-high)


def test_the_line_is_that_of_numpy():
    rng = np.random.default_rng(0)
    x = rng.normal(1, 0.5, 30)
    y = 0.8 * x - 1 + rng.normal(0, 0.3, 30)
    fit = LogitFit.of(shares(*x), shares(*y))
    assert [fit.slope, fit.intercept] == pytest.approx(np.polyfit(x, y, 1).tolist())


def test_effective_robustness_and_its_interval_by_hand():
    """At accuracy 0.5 the line predicts 0.5, with derivative 0.25 by its logit, and its tilt does not matter."""
    value, low, high = HAND.effective(Place(test=0.5, shift=0.75, test_images=100, shift_images=75))
    images_of_shift = 0.75 * 0.25 / 75
    images_of_test = (0.25 * 1.5) ** 2 / (100 * 0.25)  # the logit's variance is 1 / (n p (1 - p))
    line = 2 * 0.25**2 / 4
    half = z_value(0.95) * math.sqrt(images_of_shift + images_of_test + line)
    assert (value, low, high) == (pytest.approx(0.25), pytest.approx(0.25 - half), pytest.approx(0.25 + half))


def test_away_from_the_mean_the_tilt_of_the_line_counts():
    place = Place(expit(1), 0.9, 10**12, 10**12)  # so many images that only the line is random
    predicted = expit(1.5)
    steep = predicted * (1 - predicted)
    value, low, _ = HAND.effective(place)
    assert value == pytest.approx(0.9 - predicted)
    assert value - low == pytest.approx(z_value(0.95) * math.sqrt(2) * steep * math.sqrt(1 / 4 + 1 / 4), rel=1e-5)


def test_of_two_models_with_the_same_test_accuracy_the_line_drops_out():
    a, b = Place(0.5, 0.75, 10**12, 75), Place(0.5, 0.6, 10**12, 96)
    value, low, high = HAND.difference(a, b)
    half = z_value(0.95) * math.sqrt(0.75 * 0.25 / 75 + 0.6 * 0.4 / 96)
    assert (value, low, high) == (pytest.approx(0.15), pytest.approx(0.15 - half), pytest.approx(0.15 + half))
    assert HAND.difference(b, a)[0] == pytest.approx(-0.15)


@pytest.mark.parametrize(
    ("test", "shift"), [([0.5, 0.6], [0.4, 0.5]), ([0.5, 0.6, 0.7], [0.4, 0.5]), ([0.5] * 3, [0.3, 0.4, 0.5])]
)
def test_a_line_needs_three_models_with_different_accuracies(test, shift):
    with pytest.raises(ValueError, match=r"accuracies in distribution, . under shift: a line needs three models"):
        LogitFit.of(test, shift)
