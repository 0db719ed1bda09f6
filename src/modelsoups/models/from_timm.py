"""The loader of timm's models, with the weights of a tag (augreg_in21k) or file, or random ones."""

from typing import Any

import timm

from modelsoups.config.models import ModelConfig
from modelsoups.models.pretrained import Encoder, not_loaded, unknown_name, unknown_tag
from modelsoups.models.weight_files import file_of, load_into, read_weights


def load_encoder(model: ModelConfig) -> Encoder:
    """Return a timm model without its classifier; ValueError if its name or tag is wrong."""
    file = file_of(model.tag)
    pretrained = model.tag is not None and file is None
    name = f"{model.name}.{model.tag}" if pretrained else model.name
    if ":" not in model.name:  # timm itself checks hf-hub:... and local-dir:...
        _check(model, name, pretrained)
    try:
        encoder: Any = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:  # network, hub client and file raise many kinds
        raise not_loaded("timm", model, error) from error
    if file:
        own = encoder.pretrained_cfg.get("classifier") or ()  # one name, or several
        own = (own,) if isinstance(own, str) else own
        load_into(encoder, read_weights(file), name, ignore=tuple(f"{module}." for module in own))
    data = timm.data.resolve_model_data_config(encoder)
    side = data["input_size"][-1] if encoder.pretrained_cfg.get("fixed_input_size") else None
    # Some backbones widen their features before the classifier that num_classes=0 leaves out.
    features = getattr(encoder, "head_hidden_size", None) or encoder.num_features
    return Encoder(encoder, features, tuple(data["mean"]), tuple(data["std"]), side)


def _check(model: ModelConfig, name: str, pretrained: bool) -> None:
    """Raise ValueError unless timm has the model and, if `pretrained`, weights with this tag."""
    if not timm.is_model(model.name):
        raise unknown_name("timm", model.name, timm.list_models())
    if pretrained and not timm.models.is_model_pretrained(name):
        tags = [found.partition(".")[2] for found in timm.list_pretrained(f"{model.name}.*")]
        raise unknown_tag("timm", model.name, str(model.tag), tags)
