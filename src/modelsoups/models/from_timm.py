"""Backbones of timm: any of its names, with one of its tags (augreg_in21k), a file, or no weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm

from modelsoups.config.schema import ModelConfig
from modelsoups.models.pretrained import Encoder, not_loaded, unknown_name, unknown_tag
from modelsoups.models.weight_files import file_of, load_into, read_weights


def load_encoder(model: ModelConfig) -> Encoder:
    """The backbone without its classifier; ValueError names the key that is wrong."""
    file = file_of(model.tag)
    pretrained = model.tag is not None and file is None
    name = f"{model.name}.{model.tag}" if pretrained else model.name
    if ":" not in model.name:  # timm itself checks hf-hub:... and local-dir:...
        _check(model, name, pretrained)
    try:
        encoder: Any = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:  # the network, the hub's client and a fetched file each raise their own
        raise not_loaded("timm", model, error) from error
    if file:
        own_classifier = _prefixes(encoder.pretrained_cfg.get("classifier"))
        load_into(encoder, read_weights(file), name, ignore=own_classifier)
    data = timm.data.resolve_model_data_config(encoder)
    side = data["input_size"][-1] if encoder.pretrained_cfg.get("fixed_input_size") else None
    # Some backbones widen their features before the classifier that num_classes=0 leaves out.
    features = getattr(encoder, "head_hidden_size", None) or encoder.num_features
    return Encoder(encoder, features, tuple(data["mean"]), tuple(data["std"]), side)


def _check(model: ModelConfig, name: str, pretrained: bool) -> None:
    """Refuse a model, or weights of it, that timm does not have."""
    if not timm.is_model(model.name):
        raise unknown_name("timm", model.name, timm.list_models())
    if pretrained and not timm.models.is_model_pretrained(name):
        with_tags = timm.list_pretrained(f"{model.name}.*")
        tags = [found.partition(".")[2] for found in with_tags]
        raise unknown_tag("timm", model.name, str(model.tag), tags)


def _prefixes(classifier: str | Sequence[str] | None) -> tuple[str, ...]:
    """How the names of a timm model's own classifier tensors begin."""
    names = [classifier] if isinstance(classifier, str) else classifier or []
    return tuple(f"{name}." for name in names)
