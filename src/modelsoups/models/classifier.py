"""Encoder and head as one classifier, and the zero-shot head of CLIP's text tower.

`model.name` and `model.tag` are open_clip's or timm's: any CLIP of open_clip, any timm backbone. A tag that looks like
a file (ViT-B-32.pt, weights.safetensors) is read from disk instead, without running code in it: OpenAI's TorchScript
archives, state dicts, safetensors. Without a tag the encoder has no pre-trained weights, which is right only where a
checkpoint brings all of them.

The GELU trap: OpenAI's CLIPs were trained with QuickGELU. Their weights load into open_clip's plain ViT-B-32 without
complaint and give wrong features; the name must end in -quickgelu. That is refused here wherever the weights tell
where they come from (a tag, OpenAI's archive, or the buffers that OpenAI's state dicts hold).

Legend: B images, C classes, D features, H height, W width, T templates.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelsoups.checkpoints.formats import SUFFIXES
from modelsoups.config.schema import ModelConfig
from modelsoups.models.weight_files import file_of, load_into, read_weights

QUICK = "-quickgelu"


class Classifier(nn.Module):
    """encoder -> (unit features) -> linear head. mean and std are those of the encoder's pre-training."""

    def __init__(
        self,
        encoder: nn.Module,
        features: int,
        classes: int,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        normalize: bool,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(features, classes)
        self.image_size, self.normalize = image_size, normalize
        self.mean, self.std = tuple(mean), tuple(std)

    def features(self, images_BCHW: Tensor) -> Tensor:
        """features_BD of normalised images."""
        out = self.encoder(images_BCHW)
        features_BD = out[0] if isinstance(out, tuple) else out  # CoCa's tower returns its tokens too
        return F.normalize(features_BD, dim=-1) if self.normalize else features_BD

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """logits_BC of normalised images; the head in its own precision even under autocast, since logits are large."""
        features_BD = self.features(images_BCHW)
        if features_BD.is_meta:  # nothing is computed, and there is no autocast
            return self.head(features_BD)
        with torch.autocast(features_BD.device.type, enabled=False):
            return self.head(features_BD.to(self.head.weight.dtype))


def state_of(model: Classifier) -> dict[str, Tensor]:
    """A model's tensors as they are saved: on the CPU, numbers in float32, integer buffers as they are."""
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


@dataclass(frozen=True)
class Clip:
    """A pre-trained CLIP: both towers and what its texts and images need."""

    model: Any  # open_clip's CLIP: visual, encode_text, logit_scale
    tokenize: Callable[[list[str]], Tensor]
    features: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def build(model: ModelConfig, num_classes: int) -> Classifier:
    """The pre-trained encoder under a new head (PyTorch's default initialization; `heads` replaces it).

    Raises ValueError naming model.name, model.tag or model.image_size where one of them is wrong; see load_clip.
    """
    if model.library == "timm":
        return _timm(model, num_classes)
    clip = load_clip(model) if model.library == "iconclip" else _clip(model, lambda texts: torch.empty(0))
    encoder = clip.model.visual
    _check_size(model, _side(encoder.image_size))
    return Classifier(
        encoder, clip.features, num_classes, model.image_size, clip.mean, clip.std, model.normalize_features
    )


def load_clip(model: ModelConfig) -> Clip:
    """Both towers of a CLIP with its weights; ValueError for a library without a text tower, or without weights."""
    if model.library == "iconclip":
        from modelsoups.models.iconclip import load_iconclip

        clip, tokenize = load_iconclip()
        visual = clip.visual
        return Clip(clip, tokenize, visual.output_dim, tuple(visual.image_mean), tuple(visual.image_std))
    if model.library != "open_clip":
        raise ValueError(f"model.library={model.library} has no text tower; use heads.init=lp or a CLIP model")
    if model.tag is None:
        raise ValueError(
            f"model.tag is null: {model.name} has no pre-trained weights; give a tag of open_clip or a file"
        )
    import open_clip

    return _clip(model, open_clip.get_tokenizer(model.name))


# ---- open_clip ----


def _clip(model: ModelConfig, tokenize: Callable[[list[str]], Tensor]) -> Clip:
    """open_clip's model on the CPU in float32, ready for evaluation."""
    import open_clip

    config = _clip_config(model.name)
    file = file_of(model.tag)
    options: dict[str, Any] = {"load_weights": False, "pretrained_text": False, "force_preprocess_cfg": {}}
    if model.tag is None or file:
        options["force_preprocess_cfg"] = _statistics(model.name)
    elif ":" in model.name:  # hf-hub:... and local-dir:... name their weights themselves
        options = {"require_pretrained": True}
    else:
        _check_tag(model.name, model.tag, bool(config.get("quick_gelu")))
        options = {"pretrained": model.tag, "require_pretrained": True}
    try:
        with _quiet():
            clip = open_clip.create_model(model.name, **options)
    except Exception as error:  # from the network, the hub's client or the file it fetched, each with its own kinds
        raise ValueError(
            f"model.name={model.name} model.tag={model.tag}: open_clip could not load it ({_one_line(error)}); "
            "where there is no network, model.tag can be a file"
        ) from error
    if file:
        content = read_weights(file)
        if content.openai and not config.get("quick_gelu"):
            raise ValueError(_gelu(model.name, f"OpenAI's weights in {file}", quick=False))
        load_into(clip, content, model.name)
    visual = clip.visual
    return Clip(clip.eval(), tokenize, config["embed_dim"], tuple(visual.image_mean), tuple(visual.image_std))


def _clip_config(name: str) -> dict[str, Any]:
    import open_clip

    try:
        config = open_clip.get_model_config(name)
    except Exception as error:  # hf-hub: as above; local-dir: a missing or damaged file
        raise ValueError(f"model.name={name}: its configuration could not be read ({_one_line(error)})") from error
    if config is None:
        raise ValueError(f"model.name={name}: open_clip has no such model{_nearest(name, open_clip.list_models())}")
    return dict(config)


def _check_tag(name: str, tag: str, quick: bool) -> None:
    """Refuse a tag that open_clip does not have, and one whose weights were trained with the other GELU."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    if not open_clip.is_pretrained_cfg(name, tag):
        raise ValueError(
            f"model.tag={tag}: open_clip has no such weights for {name}; tags: {', '.join(tags) or 'none'}; "
            f"or a file ({', '.join(SUFFIXES)})"
        )
    if bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu")) != quick:
        raise ValueError(_gelu(name, f"the weights {tag}", quick))


def _gelu(name: str, whose: str, quick: bool) -> str:
    right = name.removesuffix(QUICK) if quick else name + QUICK
    return (
        f"model.name={name}: {whose} were trained with {'plain GELU' if quick else 'QuickGELU'}, which {name} does not "
        f"have: they would load and give wrong features; set model.name={right}"
    )


def _statistics(name: str) -> dict[str, Any]:
    """mean and std that all of open_clip's weights for this architecture share, else {} for its default, OpenAI's."""
    import open_clip

    configs = [open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)]
    pairs = {(tuple(c["mean"]), tuple(c["std"])) for c in configs}
    if len(pairs) != 1:
        return {}
    mean, std = pairs.pop()
    return {"mean": mean, "std": std}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without open_clip's warning that a model has no weights: then a file or a checkpoint brings them."""
    level = logging.root.level
    logging.root.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logging.root.setLevel(level)


# ---- timm ----


def _timm(model: ModelConfig, num_classes: int) -> Classifier:
    """A timm backbone without its classifier; tag: one of timm's (augreg_in21k), a file, or null for no weights."""
    import timm

    file = file_of(model.tag)
    name = model.name if file or model.tag is None else f"{model.name}.{model.tag}"
    _check_timm(model.name, name, pretrained=model.tag is not None and file is None)
    try:
        encoder: Any = timm.create_model(name, pretrained=model.tag is not None and file is None, num_classes=0)
    except Exception as error:  # as in _clip
        raise ValueError(
            f"model.name={model.name} model.tag={model.tag}: timm could not load it ({_one_line(error)}); "
            "where there is no network, model.tag can be a file"
        ) from error
    if file:
        load_into(encoder, read_weights(file), name, _heads(encoder.pretrained_cfg.get("classifier")))
    data = timm.data.resolve_model_data_config(encoder)
    if encoder.pretrained_cfg.get("fixed_input_size"):
        _check_size(model, data["input_size"][-1])
    features = getattr(encoder, "head_hidden_size", None) or encoder.num_features  # what num_classes=0 puts out
    return Classifier(
        encoder, features, num_classes, model.image_size, data["mean"], data["std"], model.normalize_features
    )


def _check_timm(model: str, name: str, pretrained: bool) -> None:
    import timm

    if ":" in model:  # hf-hub:...
        return
    if not timm.is_model(model):
        raise ValueError(f"model.name={model}: timm has no such model{_nearest(model, timm.list_models())}")
    if pretrained and not timm.models.is_model_pretrained(name):
        tags = [n.partition(".")[2] for n in timm.list_pretrained(f"{model}.*")]
        raise ValueError(
            f"model.tag={name.partition('.')[2]}: timm has no such weights for {model}; tags: "
            f"{', '.join(tags) or 'none'}; or a file ({', '.join(SUFFIXES)})"
        )


def _heads(classifier: str | Sequence[str] | None) -> tuple[str, ...]:
    """Prefixes of the tensors of a timm model's own classifier."""
    names = [classifier] if isinstance(classifier, str) else classifier or []
    return tuple(f"{name}." for name in names)


# ---- checks ----


def _check_size(model: ModelConfig, side: int) -> None:
    if model.image_size != side:
        raise ValueError(
            f"model.image_size={model.image_size}: {model.name} takes images of {side} pixels; set "
            f"model.image_size={side}, or choose a model of the other size"
        )


def _side(size: int | tuple[int, int]) -> int:
    """The side of square images; open_clip gives a number or a pair."""
    return size if isinstance(size, int) else size[0]


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=0.6)
    return f"; did you mean {', '.join(near)}?" if near else "; its documentation lists them"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 300 else text[:297] + "..."


@torch.inference_mode()
def zeroshot_weights(clip: Clip, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
    """weights_CD of the zero-shot head: unit text features, averaged over templates, unit again, times the scale.

    As in CLIP's notebook and open_clip's zero-shot classifier; the head's bias is zero.
    """
    rows = []
    for name in classes:  # one class at a time: names may repeat (ImageNet has two pairs), and memory stays small
        text = clip.tokenize([template.format(name) for template in templates])
        features_TD = F.normalize(clip.model.encode_text(text), dim=-1)
        rows.append(F.normalize(features_TD.mean(dim=0), dim=-1))
    return torch.stack(rows) * clip.model.logit_scale.exp()


def normalise(model: Classifier, pixels_BCHW: Tensor) -> Tensor:
    """uint8 pixels -> the floats that the encoder was pre-trained on, on the model's device."""
    device = model.head.weight.device
    return (pixels_BCHW.to(device).float().div_(255) - _per_channel(model.mean, device)) / _per_channel(
        model.std, device
    )


@functools.lru_cache(maxsize=16)
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """values_1C11, kept: making them anew for each batch would wait for the GPU."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(1, 3, 1, 1)
