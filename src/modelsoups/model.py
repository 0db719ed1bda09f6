"""Encoder and head as one classifier, and the zero-shot head of CLIP's text tower.

Legend: B images, C classes, D features, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelsoups.config import ModelConfig


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
        features_BD = self.encoder(images_BCHW)
        return F.normalize(features_BD, dim=-1) if self.normalize else features_BD

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """logits_BC of normalised images."""
        return self.head(self.features(images_BCHW))


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
    """The pre-trained encoder under a new head (PyTorch's default initialization; `heads` replaces it)."""
    if model.library == "timm":
        return _timm(model, num_classes)
    clip = load_clip(model)
    encoder = clip.model.visual
    return Classifier(
        encoder, clip.features, num_classes, model.image_size, clip.mean, clip.std, model.normalize_features
    )


def load_clip(model: ModelConfig) -> Clip:
    """Both towers of a CLIP with its weights; ValueError for a library without a text tower."""
    if model.library == "iconclip":
        from modelsoups.data.iconnet.iconclip import load_iconclip

        clip, tokenize = load_iconclip()
    elif model.library == "open_clip":
        import open_clip

        clip = open_clip.create_model(model.name, pretrained=model.tag)
        tokenize = open_clip.get_tokenizer(model.name)
    else:
        raise ValueError(f"model.library={model.library} has no text tower; use heads.init=lp or a CLIP model")
    visual = clip.visual
    return Clip(clip.eval(), tokenize, visual.output_dim, tuple(visual.image_mean), tuple(visual.image_std))


def _timm(model: ModelConfig, num_classes: int) -> Classifier:
    import timm

    encoder: Any = timm.create_model(model.name, pretrained=model.tag is not None, num_classes=0)
    data = timm.data.resolve_model_data_config(encoder)
    return Classifier(
        encoder,
        encoder.num_features,
        num_classes,
        model.image_size,
        data["mean"],
        data["std"],
        model.normalize_features,
    )


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
