"""EMA and SWA by hand."""

import pytest
import torch
from pico import BASE

from modelsoups.recipes.recipe import Recipe
from modelsoups.train.averages import Ema, Swa, averages_of


def test_ema_by_hand():
    ema = Ema(0.9)
    for value in (1.0, 2.0, 3.0):
        ema.update({"w": torch.tensor([value]), "count": torch.tensor(int(value))})
    assert float(ema.state["w"]) == pytest.approx(0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 3)
    assert (ema.state["count"].item(), ema.state["count"].dtype) == (3, torch.int64)


def test_swa_is_the_mean_of_the_epochs_and_of_the_last_three_tenths():
    everything, late = Swa(), Swa(begin=0.7)
    for epoch in range(1, 11):
        for swa in (everything, late):
            swa.update({"w": torch.tensor([float(epoch)]), "count": torch.tensor(epoch)}, epoch / 10)
    assert float(everything.state["w"]) == pytest.approx(5.5)
    assert float(late.state["w"]) == pytest.approx((7 + 8 + 9 + 10) / 4)
    assert (everything.count, late.count, late.state["count"].item()) == (10, 4, 10)


def test_the_average_is_not_the_models_own_memory():
    weight = torch.tensor([1.0])
    ema = Ema(0.5)
    ema.update({"w": weight})
    weight.fill_(9.0)
    assert float(ema.state["w"]) == 1.0


def test_several_decays_move_side_by_side_and_leave_integers_alone():
    one, two = Ema(0.5), Ema(0.99)
    for value in (0.0, 1.0, 2.0):
        for ema in (one, two):
            ema.update({"a": torch.tensor([value]), "b": torch.tensor([2 * value]), "n": torch.tensor(int(value))})
    assert [float(one.state[k]) for k in "ab"] == pytest.approx([0.5 * 0.5 + 0.5 * 2, 2 * 1.25])
    assert [float(two.state[k]) for k in "ab"] == pytest.approx([0.99 * 0.01 + 0.01 * 2, 2 * 0.0299])
    assert two.state["n"].item() == 2


def test_with_warm_up_an_ema_forgets_its_first_weights_whatever_its_decay():
    ema, plain = Ema(0.9999999, warmup=True), Ema(0.9999999)
    for value in (5.0, *[1.0] * 99):
        for average in (ema, plain):
            average.update({"w": torch.tensor([value])})
    by_hand = 5.0
    for step in range(1, 100):
        decay = (1 + step) / (10 + step)
        by_hand = decay * by_hand + (1 - decay) * 1.0
    assert float(ema.state["w"]) == pytest.approx(by_hand)
    assert by_hand < 1.001
    assert float(plain.state["w"]) > 4.99


def test_warm_up_ends_where_the_decay_is_the_smaller_one():
    ema, plain = Ema(0.5, warmup=True), Ema(0.5)
    for average in (ema, plain):
        average.count = 20  # (1 + 20) / (10 + 20) is 0.7
        for value in (0.0, 1.0, 3.0):
            average.update({"w": torch.tensor([value])})
    assert torch.equal(ema.state["w"], plain.state["w"])


def test_names_tell_decays_apart():
    """Those of J.2.3 and, to the power 1/8, of appendix C."""
    recipe = Recipe(**BASE, ema=(0.999, 0.9999999, 0.5), swa=(0.0, 0.7))
    assert list(averages_of(recipe)) == ["ema-0.999", "ema-0.9999999", "ema-0.5", "swa-0", "swa-0.7"]
    assert len(averages_of(Recipe(**BASE, ema=(0.999**0.125, 0.9999999**0.125, 0.9999999)))) == 3
