"""The clock of a step, and FLOP counts."""

import pytest
import torch

from modelsoups.config.models import ModelConfig
from modelsoups.models.classifier import build
from modelsoups.train import throughput


def test_a_forward_pass_of_vit_b32_is_8_82_gflop_and_changes_nothing():
    """4.41 GMAC, a multiply-add being two operations; forward and backward are three times that, 26.3 to 26.5."""
    model = build(ModelConfig("ViT-B-32-quickgelu", "open_clip"), 1000).train()
    before = model.head.weight.clone()
    forward = throughput.forward_flops(model, torch.zeros(2, 3, 224, 224))
    assert forward / 1e9 == pytest.approx(8.82, rel=0.01)
    assert throughput.training_flops(forward, sam=False, teachers=0) / 1e9 == pytest.approx(26.4, rel=0.01)
    assert throughput.training_flops(10, sam=True, teachers=3) == 10 * (6 + 3)
    assert torch.equal(model.head.weight, before)


def test_flops_of_a_network_with_batch_norm_leave_its_statistics_alone():
    model = build(ModelConfig("resnet18", "timm", image_size=64), 10).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert throughput.forward_flops(model, torch.zeros(2, 3, 64, 64)) > 2 * 0.14e9  # 1.8 GMAC at 224
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_clock_adds_up_each_phase_between_two_lines():
    clock = throughput.Clock(torch.device("cpu"))
    for phase in ("other", "data", "forward", "backward", "optimizer", "other", "data"):
        clock.mark(phase)
    first = clock.take()
    begin = first[0][1]
    made = [(phase, begin + second) for (phase, _), second in zip(first, [0, 1, 3, 6, 7, 7.5, 9.5], strict=True)]
    seconds = throughput.phases(made)
    assert seconds == pytest.approx({"data": 1 + 2, "forward": 2, "backward": 3, "optimizer": 1, "other": 0.5})
    found = throughput.summary(seconds, 19, "images")
    assert found["recent_images_per_second"] == 2.0
    assert found["shares"]["backward"] == round(3 / 9.5, 3)
    assert sum(found["shares"].values()) == pytest.approx(1, abs=0.01)
    clock.mark("forward")
    assert [phase for phase, _ in clock.take()] == ["data", "forward"]  # from where the line before ended
    assert throughput.summary(throughput.phases([]), 5, "images") == {}
