"""The loader of timm's models, with the weights of a tag (augreg_in21k) or file, or random ones."""

from typing import Any

import timm
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from modelsoups.config.models import ModelConfig
from modelsoups.models.positions import PositionGrid
from modelsoups.models.pretrained import Encoder, not_loaded, unknown_name, unknown_tag
from modelsoups.models.weight_files import file_of, load_into, read_weights


def load_encoder(model: ModelConfig) -> Encoder:
    """Return a timm model without its classifier; ValueError if its name or tag is wrong."""
    encoder = _create(model, num_classes=0)
    if file := file_of(model.tag):
        own = encoder.pretrained_cfg.get("classifier") or ()  # one name, or several
        own = (own,) if isinstance(own, str) else own
        load_into(encoder, read_weights(file), model.name, ignore=tuple(f"{module}." for module in own))
    data = timm.data.resolve_model_data_config(encoder)
    side = data["input_size"][-1] if encoder.pretrained_cfg.get("fixed_input_size") else None
    # Some backbones widen their features before the classifier that num_classes=0 leaves out.
    features = getattr(encoder, "head_hidden_size", None) or encoder.num_features
    statistics = tuple(data["mean"]), tuple(data["std"])
    return Encoder(encoder, features, *statistics, side, _grid(encoder, side), convolutional=side is None)


def load_head(model: ModelConfig) -> nn.Linear:
    """Return the classifier that a timm model's weights contain, of the classes that it was fine-tuned on.

    Raises ValueError if name or tag is wrong, a file has other tensors, or the classifier is not one linear layer.
    """
    whole = _create(model)
    if file := file_of(model.tag):
        load_into(whole, read_weights(file), model.name)
    head = whole.get_classifier()
    if not isinstance(head, nn.Linear):
        raise ValueError(f"model.name={model.name}: its classifier is a {type(head).__name__}, not one linear layer")
    return head


def _create(model: ModelConfig, **options: Any) -> Any:
    """Return a timm model, with the weights of a tag; those of a file are not loaded yet."""
    pretrained = model.tag is not None and file_of(model.tag) is None
    name = f"{model.name}.{model.tag}" if pretrained else model.name
    if ":" not in model.name:  # timm itself checks hf-hub:... and local-dir:...
        _check(model, name, pretrained)
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:  # network, hub client and file raise many kinds
        raise not_loaded("timm", model, error) from error


def _grid(encoder: Any, side: int | None) -> PositionGrid | None:
    """Return the grid of a plain vision transformer's position embeddings; None for other models."""
    plain = isinstance(encoder, VisionTransformer) and type(encoder.patch_embed) is PatchEmbed
    if side is None or not plain or encoder.pos_embed is None:
        return None
    encoder.patch_embed.strict_img_size = False
    leading = 0 if encoder.no_embed_class else encoder.num_prefix_tokens
    return PositionGrid("pos_embed", side, encoder.patch_embed.patch_size[0], leading)


def _check(model: ModelConfig, name: str, pretrained: bool) -> None:
    """Raise ValueError unless timm has the model and, if `pretrained`, weights with this tag."""
    if not timm.is_model(model.name):
        raise unknown_name("timm", model.name, timm.list_models())
    if pretrained and not timm.models.is_model_pretrained(name):
        tags = [found.partition(".")[2] for found in timm.list_pretrained(f"{model.name}.*")]
        raise unknown_tag("timm", model.name, str(model.tag), tags)
