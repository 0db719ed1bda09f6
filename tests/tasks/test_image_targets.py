"""Targets, losses, mixup and CutMix against numbers worked out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from modelsoups.tasks import image_targets


def test_the_loss_of_a_guess():
    assert image_targets.chance_loss("softmax", 80) == pytest.approx(math.log(80))
    assert image_targets.chance_loss("binary", 80) == pytest.approx(80 * math.log(2))


def test_label_smoothing_keeps_its_share_on_the_label():
    # 4 classes, 0.2: 0.05 everywhere and 0.8 more on the label
    targets = image_targets.soft_targets(torch.tensor([2, 0]), 4, 0.2)
    expected = torch.tensor([[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]])
    torch.testing.assert_close(targets, expected)


def test_mixup_pairs_the_batch_with_its_reverse():
    images = torch.tensor([0.0, 4.0, 8.0]).view(3, 1, 1, 1)
    targets = torch.eye(3)
    mixed, soft = image_targets.mixup(images, targets, 0.75)
    # 0.75 * 0 + 0.25 * 8 = 2; 4 with itself; 0.75 * 8 + 0 = 6
    assert mixed.flatten().tolist() == [2.0, 4.0, 6.0]
    assert soft.tolist() == [[0.75, 0, 0.25], [0, 1, 0], [0.25, 0, 0.75]]


def test_mixup_lambda_is_a_function_of_its_key_and_follows_the_beta_distribution():
    assert image_targets.mixup_lambda(0.5, 1, 2) == image_targets.mixup_lambda(0.5, 1, 2)
    draws = torch.tensor([image_targets.mixup_lambda(0.5, 0, step) for step in range(4000)])
    assert 0 <= float(draws.min()) <= float(draws.max()) <= 1
    assert float(draws.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(draws.var()) == pytest.approx(0.125, abs=0.01)  # Beta(a, a): 1 / (4 (2a + 1))


def test_distillation_targets_are_the_ensembles_probabilities():
    """Logits (2 log 3, 0) and (0, 0) average to (log 3, 0): 3/4 and 1/4, where the probabilities' mean is 0.7."""
    logits = [torch.tensor([[2 * math.log(3), 0.0]]), torch.zeros(1, 2)]
    targets = image_targets.ensemble_targets(logits, "softmax")
    assert targets.tolist()[0] == pytest.approx([0.75, 0.25])
    assert image_targets.ensemble_targets(logits, "binary").tolist()[0] == pytest.approx([0.75, 0.5])
    assert targets.dtype == torch.float32
    # a student of two parameters, its logits: gradient p - t = (1/2 - 3/4, 1/2 - 1/4), and none at p = t
    student = torch.zeros(1, 2, requires_grad=True)
    loss = F.cross_entropy(student, targets)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert student.grad.tolist()[0] == pytest.approx([-0.25, 0.25])
    done = torch.tensor([[math.log(3), 0.0]], requires_grad=True)
    F.cross_entropy(done, targets).backward()
    assert done.grad.tolist()[0] == pytest.approx([0.0, 0.0], abs=1e-6)


def test_losses_of_one_image_by_hand():
    logits, targets = torch.tensor([[math.log(3), 0.0]]), torch.tensor([[1.0, 0.0]])
    assert float(F.cross_entropy(logits, targets)) == pytest.approx(-math.log(3 / 4))
    # sigmoid(log 3) = 3/4 and sigmoid(0) = 1/2: -log 3/4 - log 1/2
    assert float(image_targets.binary_loss(logits, targets)) == pytest.approx(-math.log(3 / 4) - math.log(1 / 2))
    twice = image_targets.binary_loss(logits.repeat(2, 1), targets.repeat(2, 1))
    assert float(twice) == pytest.approx(-math.log(3 / 8))


def test_cutmix_takes_a_box_and_its_share_of_the_target():
    images = torch.zeros(2, 1, 8, 8)
    images[1] = 1.0
    targets = torch.eye(2)
    for step in range(20):
        mixed, soft = image_targets.cutmix(images, targets, 0.75, 0, step)  # a box of 4 x 4, cut at the borders
        share = float(mixed[0].mean())
        assert 4 / 64 <= share <= 16 / 64
        assert soft[0].tolist() == pytest.approx([1 - share, share])
        rows, columns = mixed[0, 0].amax(1).nonzero(), mixed[0, 0].amax(0).nonzero()
        assert mixed[0].sum() == len(rows) * len(columns)  # a rectangle
        again = image_targets.cutmix(images, targets, 0.75, 0, step)
        assert torch.equal(again[0], mixed)
    assert torch.equal(image_targets.cutmix(images, targets, 1.0, 0)[0], images)
    assert images[0].sum() == 0  # the batch itself is not changed
