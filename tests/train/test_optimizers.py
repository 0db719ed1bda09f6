"""Schedules, losses, CutMix, EMA, SWA, SAM and optimizers on models of two parameters, worked out by hand."""

import copy
import math

import pytest
import torch
from torch.nn import Parameter

from modelsoups.train import optimizers
from modelsoups.train.optimizers import OPTIMIZERS, restore, sharpened


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25]),
        ("cosine", [1, 0.5 + 0.5 * math.sqrt(0.5), 0.5, 0.5 - 0.5 * math.sqrt(0.5)]),
        ("cosine_restarts", [1, 0.5, 1, 0.5]),
    ],
)
def test_schedules_of_four_steps_in_two_epochs(schedule, expected):
    assert [optimizers.lr_factor(s, 4, 0, schedule, per_epoch=2) for s in range(4)] == pytest.approx(expected)


def test_warm_up_comes_before_every_schedule():
    for schedule in optimizers.SCHEDULES:
        factors = [optimizers.lr_factor(s, 40, 4, schedule, per_epoch=10) for s in range(4)]
        assert factors == [0.25, 0.5, 0.75, 1.0]


def test_sam_takes_the_gradient_rho_up_the_slope():
    """loss = a**2 + 2 b**2 at (3, 4): gradient (6, 16), norm sqrt(292); rho up, the gradient is (2 a', 4 b')."""
    a, b = Parameter(torch.tensor(3.0, dtype=torch.float64)), Parameter(torch.tensor(4.0, dtype=torch.float64))

    def loss():
        return a**2 + 2 * b**2

    loss().backward()
    with sharpened([a, b], rho=0.5):
        up = (3 + 0.5 * 6 / math.sqrt(292), 4 + 0.5 * 16 / math.sqrt(292))
        assert (a.item(), b.item()) == pytest.approx(up)
        loss().backward()
    assert (a.item(), b.item()) == (3.0, 4.0)
    assert (a.grad.item(), b.grad.item()) == pytest.approx((2 * up[0], 4 * up[1]))


def test_the_first_step_of_each_optimizer():
    """Gradient 2 at w = 1, lr 0.1, no decay: the step that each takes."""
    expected = {
        "adamw": 1 - 0.1,  # m / sqrt(v) = 2 / 2
        "adam": 1 - 0.1,
        "rmsprop": 1 - 0.1 * 2 / math.sqrt(0.01 * 4),  # alpha 0.99
        "sgd": 1 - 0.1 * 2,
        "adafactor": 1 - 0.1 * 1.0,  # lr * max(eps2, rms(w)) * u, u = g / |g|
    }
    for name, make in OPTIMIZERS.items():
        weight = Parameter(torch.tensor([1.0]))
        optimizer = make([weight], 0.1, 0.0)
        weight.grad = torch.tensor([2.0])
        optimizer.step()
        assert weight.item() == pytest.approx(expected[name], abs=1e-5), name


def test_decay_is_decoupled_in_adamw_alone():
    for name, expected in [("adamw", 1 - 0.1 * 0.5 * 1.0), ("sgd", 1 - 0.1 * 0.5 * 1.0), ("adam", 1 - 0.1)]:
        weight = Parameter(torch.tensor([1.0]))
        optimizer = OPTIMIZERS[name]([weight], 0.1, 0.5)
        weight.grad = torch.tensor([0.0])
        optimizer.step()
        assert weight.item() == pytest.approx(expected, abs=1e-5), name  # Adam: the decay is the gradient, normalised


def test_sgd_after_clipping_by_hand():
    """Gradient (3, 4) of norm 5, clipped to 1: a step of 0.1 * (0.6, 0.8)."""
    weight = Parameter(torch.tensor([1.0, 1.0]))
    optimizer = OPTIMIZERS["sgd"]([weight], 0.1, 0.0)
    weight.grad = torch.tensor([3.0, 4.0])
    torch.nn.utils.clip_grad_norm_([weight], 1.0)
    optimizer.step()
    assert weight.tolist() == pytest.approx([1 - 0.06, 1 - 0.08], abs=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_continues_from_what_it_held_and_computes_in_its_own_way(name):
    def begin():
        weight = Parameter(torch.tensor([1.0, -2.0]))
        return weight, OPTIMIZERS[name]([weight], 0.1, 0.01)

    def step(weight, optimizer, gradient):
        weight.grad = torch.tensor(gradient)
        optimizer.step()

    weight, optimizer = begin()
    step(weight, optimizer, [0.5, 1.0])
    held, before = copy.deepcopy(optimizer.state_dict()), weight.detach().clone()
    step(weight, optimizer, [-1.0, 2.0])
    again, other = begin()
    again.data.copy_(before)
    own = other.defaults.get("fused")
    foreign = {**held, "param_groups": [{**group, "fused": not own} for group in held["param_groups"]]}  # of a GPU
    restore(other, foreign)
    assert all(group["fused"] == own for group in other.param_groups if "fused" in other.defaults)
    step(again, other, [-1.0, 2.0])
    assert torch.equal(again, weight)


def test_the_schedule_warms_up_linearly_and_ends_at_zero_by_cosine():
    # 40 steps, warm-up of 4 (a tenth): 1/4, 2/4, 3/4, 4/4, then cos over 36 steps
    factors = [optimizers.lr_factor(s, 40, 100, "cosine") for s in range(41)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1.0
    assert factors[22] == pytest.approx(0.5)  # half way: 4 + 18
    assert factors[13] == pytest.approx(0.5 * (1 + math.sqrt(0.5)))  # a quarter of the way: cos(pi/4)
    assert factors[40] == pytest.approx(0.0)
    assert optimizers.lr_factor(39, 40, 2, "constant") == 1.0
    assert optimizers.lr_factor(0, 5, 3, "cosine") == 1.0  # a tenth of 5 is no step: no warm-up
