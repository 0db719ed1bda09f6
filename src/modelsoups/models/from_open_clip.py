"""The loader of open_clip's models, by their names in open_clip or as hf-hub:... or local-dir:...

OpenAI trained its CLIPs with QuickGELU. open_clip loads their weights into its plain ViT-B-32
without an error, but the features are then wrong: model.name must end in -quickgelu. A wrong name
is refused if the tag, or the format of the weight file, shows that OpenAI trained the weights.
"""

from typing import Any

import open_clip
import torch

from modelsoups.config.models import ModelConfig
from modelsoups.models import pretrained
from modelsoups.models.pretrained import Clip, Encoder, quiet
from modelsoups.models.weight_files import file_of, load_into, read_weights

QUICK = "-quickgelu"


def load_encoder(model: ModelConfig) -> Encoder:
    """Return the image tower, with random weights if model.tag is null.

    Raises ValueError if model.name or model.tag is wrong.
    """
    config = _config(model.name)
    clip = Clip(_load(model, config), lambda texts: torch.empty(0))  # its tokenizer is not needed
    return clip.image_encoder(config["embed_dim"])


def load_clip(model: ModelConfig) -> Clip:
    """Return both towers and the tokenizer; ValueError if name or tag is wrong, or tag is null."""
    if model.tag is None:
        way_out = "set model.tag to a tag of open_clip or to a file"
        raise ValueError(f"model.tag=null: no pre-trained weights for {model.name}; {way_out}")
    return Clip(_load(model, _config(model.name)), open_clip.get_tokenizer(model.name))


def _load(model: ModelConfig, architecture: dict[str, Any]) -> Any:
    """Return open_clip's model with its weights, on the CPU, in float32 and evaluation mode."""
    name, tag, file = model.name, model.tag, file_of(model.tag)
    quick = bool(architecture.get("quick_gelu"))
    options: dict[str, Any] = {"require_pretrained": True}
    if tag is None or file:
        options = {"load_weights": False, "pretrained_text": False, "force_preprocess_cfg": _statistics(name)}
    elif ":" not in name:  # hf-hub:... and local-dir:... include their weights
        _check_tag(name, tag, quick)
        options["pretrained"] = tag
    try:
        with quiet():
            clip = open_clip.create_model(name, **options)
    except Exception as error:  # network, hub client and file raise many kinds
        raise pretrained.not_loaded("open_clip", model, error) from error
    if file:
        content = read_weights(file)
        if content.openai and not quick:
            raise _wrong_gelu(name, f"OpenAI's weights in {file}", quick=False)
        load_into(clip, content, name)
    return clip.eval()


def _config(name: str) -> dict[str, Any]:
    """Return open_clip's configuration of a model; ValueError if it is missing or unreadable."""
    try:
        config = open_clip.get_model_config(name)
    except Exception as error:  # hf-hub: the network; local-dir: a missing or damaged file
        reason = pretrained.one_line(error)
        raise ValueError(f"model.name={name}: its configuration cannot be read ({reason})") from error
    if config is None:
        raise pretrained.unknown_name("open_clip", name, open_clip.list_models())
    return dict(config)


def _check_tag(name: str, tag: str, quick: bool) -> None:
    """Raise ValueError if open_clip lacks the tag, or its weights need the other kind of GELU."""
    if not open_clip.is_pretrained_cfg(name, tag):
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise pretrained.unknown_tag("open_clip", name, tag, tags)
    if bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu")) != quick:
        raise _wrong_gelu(name, f"the weights {tag}", quick)


def _wrong_gelu(name: str, weights: str, quick: bool) -> ValueError:
    """Return the error for weights that need the other GELU; quick: the model has QuickGELU."""
    trained_with = "plain GELU" if quick else "QuickGELU"
    right = name.removesuffix(QUICK) if quick else name + QUICK
    why = f"{weights} were trained with {trained_with}, which {name} does not use; its features would be wrong"
    return ValueError(f"model.name={name}: {why}; set model.name={right}")


def _statistics(name: str) -> dict[str, Any]:
    """Return the pixels' mean and std if they are the same for all tags of a model, else {}."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    configs = [open_clip.get_pretrained_cfg(name, tag) for tag in tags]
    pairs = {(tuple(c["mean"]), tuple(c["std"])) for c in configs}
    if len(pairs) != 1:
        return {}
    mean, std = pairs.pop()
    return {"mean": mean, "std": std}
