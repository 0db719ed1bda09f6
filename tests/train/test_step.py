"""The pure pieces of a training step, against values worked out by hand."""

import math

import pytest
import torch

from modelsoups.data import order
from modelsoups.train import step as training


def test_the_schedule_warms_up_linearly_and_ends_at_zero_by_cosine():
    # 40 steps, warm-up of 4 (a tenth): 1/4, 2/4, 3/4, 4/4, then cos over 36 steps
    factors = [training.lr_factor(s, 40, 100, "cosine") for s in range(41)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1.0
    assert factors[22] == pytest.approx(0.5)  # half way: 4 + 18
    assert factors[13] == pytest.approx(0.5 * (1 + math.sqrt(0.5)))  # a quarter of the way: cos(pi/4)
    assert factors[40] == pytest.approx(0.0)
    assert training.lr_factor(39, 40, 2, "constant") == 1.0
    assert training.lr_factor(0, 5, 3, "cosine") == 1.0  # a tenth of 5 is no step: no warm-up


def test_a_loss_diverges_when_it_stays_far_above_chance_and_above_its_beginning():
    def told(*losses, chance=2.0, patience=3):
        check = training.DivergenceCheck(chance, patience)
        return [check.reason(step, loss) for step, loss in enumerate(losses, 1)]

    assert told(1.0, 7, 7, 7, 7)[:4] == [None] * 4  # the limit is 3 * 2
    assert told(1.0, 7, 7, 7, 7)[4] == "the loss diverged: above 6 since step 2, and 7 at step 5"
    assert told(1.0, 7, 7, 7, 5, 7, 7, 7) == [None] * 8  # spikes
    assert told(1.0, 1e9, 2.0, 1e9, 1e9, 2.0) == [None] * 6
    assert told(50.0, *[149] * 9) == [None] * 10  # it began so high: zero-shot logits under binary cross-entropy
    assert told(50.0, *[151] * 4)[4] is not None
    assert told(1.0, math.inf)[1] == "the loss is inf at step 2"
    assert told(*[5.9] * 99) == [None] * 99


def test_the_loss_of_a_guess():
    assert training.chance_loss("softmax", 80) == pytest.approx(math.log(80))
    assert training.chance_loss("binary", 80) == pytest.approx(80 * math.log(2))


def test_label_smoothing_keeps_its_share_on_the_label():
    # 4 classes, 0.2: 0.05 everywhere and 0.8 more on the label
    targets = training.soft_targets(torch.tensor([2, 0]), 4, 0.2)
    expected = torch.tensor([[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]])
    torch.testing.assert_close(targets, expected)


def test_mixup_pairs_the_batch_with_its_reverse():
    images = torch.tensor([0.0, 4.0, 8.0]).view(3, 1, 1, 1)
    targets = torch.eye(3)
    mixed, soft = training.mixup(images, targets, 0.75)
    # 0.75 * 0 + 0.25 * 8 = 2; 4 with itself; 0.75 * 8 + 0 = 6
    assert mixed.flatten().tolist() == [2.0, 4.0, 6.0]
    assert soft.tolist() == [[0.75, 0, 0.25], [0, 1, 0], [0.25, 0, 0.75]]


def test_mixup_lambda_is_a_function_of_its_key_and_follows_the_beta_distribution():
    assert training.mixup_lambda(0.5, 1, 2) == training.mixup_lambda(0.5, 1, 2)
    draws = torch.tensor([training.mixup_lambda(0.5, 0, step) for step in range(4000)])
    assert 0 <= float(draws.min()) <= float(draws.max()) <= 1
    assert float(draws.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(draws.var()) == pytest.approx(0.125, abs=0.01)  # Beta(a, a): 1 / (4 (2a + 1))


def test_every_epoch_has_its_own_permutation_of_all_images():
    orders = [order.epoch_order(100, 7, epoch) for epoch in range(3)]
    assert all(sorted(o.tolist()) == list(range(100)) for o in orders)
    assert orders[0].tolist() != orders[1].tolist()
    assert orders[0].tolist() == order.epoch_order(100, 7, 0).tolist()


def test_distillation_targets_are_the_ensembles_probabilities():
    """Logits (2 log 3, 0) and (0, 0) average to (log 3, 0): 3/4 and 1/4, where the probabilities' mean is 0.7."""
    logits = [torch.tensor([[2 * math.log(3), 0.0]]), torch.zeros(1, 2)]
    targets = training.ensemble_targets(logits, "softmax")
    assert targets.tolist()[0] == pytest.approx([0.75, 0.25])
    assert training.ensemble_targets(logits, "binary").tolist()[0] == pytest.approx([0.75, 0.5])
    assert targets.dtype == torch.float32
    # a student of two parameters, its logits: gradient p - t = (1/2 - 3/4, 1/2 - 1/4), and none at p = t
    student = torch.zeros(1, 2, requires_grad=True)
    loss = training.LOSSES["softmax"](student, targets)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert student.grad.tolist()[0] == pytest.approx([-0.25, 0.25])
    done = torch.tensor([[math.log(3), 0.0]], requires_grad=True)
    training.LOSSES["softmax"](done, targets).backward()
    assert done.grad.tolist()[0] == pytest.approx([0.0, 0.0], abs=1e-6)
