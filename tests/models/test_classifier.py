"""The classifier of every model library, and how its images are normalised."""

import pytest
import torch

from modelsoups.config.compose import keys
from modelsoups.config.models import ModelConfig
from modelsoups.models.classifier import (
    LIBRARIES,
    build,
    build_on_device,
    load_clip,
    mostly_convolutional,
    normalise,
    state_of,
)

ICONCLIP = ModelConfig("IconCLIP", "iconclip", None, 32)


def test_the_configuration_allows_the_libraries_of_the_table():
    assert set(keys()["model.library"].metadata["choices"]) == set(LIBRARIES)


def test_pixels_are_normalised_by_hand():
    model = build(ICONCLIP, 3)
    pixels_BCHW = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = [(x - m) / s for x, m, s in zip((0, 0.2, 1), model.mean, model.std, strict=True)]
    for _ in range(2):  # computed, then from what is kept for the device
        assert normalise(model, pixels_BCHW).flatten().tolist() == pytest.approx(expected, abs=1e-6)
    assert pixels_BCHW.flatten().tolist() == [0, 51, 255]


def test_normalisation_can_be_used_in_training_after_it_was_used_in_inference():
    model = build(ICONCLIP, 3)
    pixels_BCHW = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with torch.inference_mode():
        normalise(model, pixels_BCHW)
    model(normalise(model, pixels_BCHW)).sum().backward()
    assert model.head.weight.grad is not None


def test_the_state_holds_encoder_and_head_and_nothing_of_the_normalisation():
    model = build(ICONCLIP, 3)
    state = state_of(model)
    assert state.keys() == model.state_dict().keys()
    assert {key.partition(".")[0] for key in state} == {"encoder", "head"}
    assert {t.dtype for t in state.values() if t.is_floating_point()} == {torch.float32}


def test_features_are_unit_vectors_if_wanted():
    images_BCHW = torch.randn(2, 3, 32, 32)
    for normalize in (True, False):
        model = build(ModelConfig("IconCLIP", "iconclip", None, 32, normalize), 3).eval()
        norms_B = model.features(images_BCHW).norm(dim=1)
        assert torch.allclose(norms_B, torch.ones(2), atol=1e-5) is normalize


def test_an_image_size_that_the_encoder_does_not_take_is_refused():
    with pytest.raises(ValueError, match=r"image_size=64: IconCLIP takes .* 32 pixels; set model\.image_size=32"):
        build(ModelConfig("IconCLIP", "iconclip", None, 64), 3)


def test_text_towers_and_their_weights_are_required_for_a_clip():
    with pytest.raises(ValueError, match=r"model\.library=timm has no text tower"):
        load_clip(ModelConfig("vit_tiny_patch16_224", "timm", None, 224))
    with pytest.raises(ValueError, match=r"model\.tag=null: no pre-trained weights for ViT-B-32"):
        load_clip(ModelConfig("ViT-B-32", "open_clip", None, 224))


def test_convolutional_networks_are_laid_out_channels_last_and_saved_contiguous():
    assert not mostly_convolutional(build(ICONCLIP, 3))
    model = build_on_device(ModelConfig("resnet18", "timm"), 10)
    kernel = model.encoder.layer1[0].conv1.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert all(tensor.is_contiguous() for tensor in state_of(model).values())
