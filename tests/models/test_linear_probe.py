"""The linear probe: what it learns, where it starts, and the features that it sees."""

import pytest
import torch

from modelsoups.config.models import ModelConfig
from modelsoups.config.schema import HeadsConfig
from modelsoups.models.classifier import build, normalise
from modelsoups.models.linear_probe import extract_features, linear_probe


def test_the_probe_separates_what_is_separable_and_starts_at_the_given_weights():
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.randint(3, (90,), generator=generator)
    features_ND = torch.nn.functional.one_hot(labels_N, 3) + 0.1 * torch.randn(90, 3, generator=generator)
    start_CD = torch.zeros(3, 3)
    heads = HeadsConfig(lp_epochs=20, lp_lr=0.1, lp_batch_size=32)
    weight_CD, bias_C = linear_probe(features_ND, labels_N, start_CD, heads)
    assert ((features_ND @ weight_CD.T + bias_C).argmax(dim=1) == labels_N).all()
    assert not start_CD.any()
    same = linear_probe(features_ND, labels_N, start_CD, heads)
    assert torch.equal(same[0], weight_CD)
    start_CD = torch.eye(3)
    unmoved_CD, _ = linear_probe(features_ND, labels_N, start_CD, HeadsConfig(lp_epochs=1, lp_lr=0.0, lp_batch_size=32))
    assert torch.equal(unmoved_CD, start_CD)


def test_a_binary_probe_is_trained_with_binary_cross_entropy():
    """AdamW's first step has the sign of the gradient, of the biases the mean of sigmoid(0) - target: 1/2 - share."""
    features_ND, labels_N = torch.zeros(5, 3), torch.tensor([0, 0, 0, 1, 1])
    heads = HeadsConfig(lp_epochs=1, lp_lr=0.1, lp_batch_size=5)
    binary, softmax = (linear_probe(features_ND, labels_N, torch.zeros(3, 3), heads, which) for which in (True, False))
    assert binary[1].tolist() == pytest.approx([0.1, -0.1, -0.1], rel=1e-4)
    assert softmax[1].tolist() == pytest.approx([0.1, 0.1, -0.1], rel=1e-4)  # 1/3 - share


def test_features_are_those_of_the_encoder_in_order_and_a_probe_can_be_trained_on_them():
    model = build(ModelConfig("IconCLIP", "iconclip", None, 32), 3).eval()
    pixels_NCHW = torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8)
    features_ND = extract_features(model, pixels_NCHW.split(2))
    with torch.inference_mode():
        expected_ND = model.features(normalise(model, pixels_NCHW))
    assert torch.allclose(features_ND, expected_ND, atol=1e-5)
    heads = HeadsConfig(lp_epochs=1, lp_batch_size=2)
    weight_CD, _ = linear_probe(features_ND, torch.tensor([0, 1, 2, 0, 1]), model.head.weight.detach(), heads)
    assert weight_CD.shape == model.head.weight.shape
