"""Images of other sizes: position embeddings resized as timm and open_clip do, sizes rounded, or refused."""

import copy

import open_clip
import pytest
import timm
import torch
from open_clip.model import resize_pos_embed
from timm.layers import resample_abs_pos_embed
from tiny import CONFIG

from modelsoups.models import from_timm
from modelsoups.models.classifier import Classifier
from modelsoups.models.positions import PositionGrid
from modelsoups.models.pretrained import Clip

MEAN = (0.5, 0.5, 0.5)
TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 0}


def timm_vit(**options):
    torch.manual_seed(0)
    return timm.models.VisionTransformer(**TINY, **options).eval()


def classifier(encoder, grid=None, side=32, convolutional=False):
    found = from_timm.Encoder(encoder, 16, MEAN, MEAN, side, grid, convolutional)
    torch.manual_seed(1)
    return Classifier(found, 3, 32, normalize=False).eval()


def open_clips():
    torch.manual_seed(0)
    clip = open_clip.CLIP(**{**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], "layers": 2, "patch_size": 8}}).eval()
    clip.visual.image_mean = clip.visual.image_std = MEAN
    return clip


@pytest.mark.parametrize("side", [8, 24, 48, 120])
def test_embeddings_are_those_of_timm_and_of_open_clip(side):
    positions = torch.randn(1, 17, 16)
    ours = PositionGrid("pos_embed", 32, 8, leading=1).resized(positions, side)
    theirs = resample_abs_pos_embed(positions, [side // 8, side // 8], num_prefix_tokens=1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    clip = open_clips()
    clip.visual.grid_size = (side // 8, side // 8)
    state = {"visual.positional_embedding": positions[0]}
    resize_pos_embed(state, clip)
    torch.testing.assert_close(ours[0], state["visual.positional_embedding"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"no_embed_class": True}, {"reg_tokens": 2}])
def test_a_vision_transformer_of_timm_sees_other_sizes_as_with_dynamic_img_size(options):
    encoder = timm_vit(**options)
    theirs = timm_vit(**options, dynamic_img_size=True)
    theirs.load_state_dict(encoder.state_dict())
    model = classifier(encoder, from_timm._grid(encoder, 32))
    assert model.adapt(47, "recipe.image_size") == 48
    images_BCHW = torch.randn(2, 3, 48, 48)
    torch.testing.assert_close(model.features(images_BCHW), theirs(images_BCHW), rtol=1e-4, atol=1e-5)
    own_BCHW = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.features(own_BCHW), encoder(own_BCHW))


def test_a_clip_sees_other_sizes_as_open_clip_with_force_image_size():
    clip = open_clips()
    model = classifier_of(clip)
    assert model.adapt(65, "evaluate.image_size") == 64
    images_BCHW = torch.randn(2, 3, 64, 64)
    larger = copy.deepcopy(clip.visual)
    resized = {"visual.positional_embedding": larger.positional_embedding.detach()}
    larger.grid_size = (8, 8)
    resize_pos_embed(resized, type("Model", (), {"visual": larger}))
    larger.positional_embedding = torch.nn.Parameter(resized["visual.positional_embedding"])
    torch.testing.assert_close(model.features(images_BCHW), larger(images_BCHW), rtol=1e-4, atol=1e-5)


def classifier_of(clip):
    torch.manual_seed(1)
    return Classifier(Clip(clip, lambda texts: torch.empty(0)).image_encoder(16), 3, 32, normalize=False).eval()


def test_training_at_another_size_trains_the_models_own_embeddings():
    model = classifier_of(open_clips())
    model.adapt(48, "recipe.image_size")
    model(torch.randn(2, 3, 48, 48)).sum().backward()
    grad = model.encoder.positional_embedding.grad
    assert grad.shape == (17, 16)
    assert bool((grad != 0).any(dim=1).all())


@pytest.mark.parametrize(
    ("patch", "side", "taken"),
    [(14, 289, 294), (14, 518, 518), (14, 360, 364), (32, 289, 288), (16, 289, 288), (16, 360, 368), (32, 5, 32)],
)
def test_the_nearest_multiple_of_the_patch_is_taken(patch, side, taken):
    assert PositionGrid("pos_embed", 224, patch, 1).nearest(side) == taken


def test_a_rounded_size_is_printed_once(capsys):
    encoder = timm_vit()
    model = classifier(encoder, from_timm._grid(encoder, 32))
    for _ in range(2):
        model.adapt(33, "recipe.image_size")
    said = "recipe.image_size=33: taken as 32, the nearest multiple of the model's patches of 8\n"
    assert capsys.readouterr().out == said


def test_convolutional_networks_take_any_size_and_others_their_own_alone():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    model = classifier(network, convolutional=True)
    assert model.adapt(289, "recipe.image_size") == 289
    assert model(torch.randn(2, 3, 289, 289)).shape == (2, 3)
    fixed = classifier(network)
    assert fixed.adapt(32, "recipe.image_size") == 32
    says = r"^evaluate\.image_size=360: this model takes images of 32 pixels alone; set evaluate\.image_size=null, .*$"
    with pytest.raises(ValueError, match=says):
        fixed.adapt(360, "evaluate.image_size")
