"""Supervised pre-training of IconViT, a small vision transformer of timm.

IconViT takes the place of the ImageNet-21k ViT that the paper compares with CLIP (Figures G.3,
L.2). It is of IconCLIP's size, and learns to classify the names of icons that two or more designers
drew. Its classifier is then dropped. timm can load its folder (config.json, model.safetensors).

Shape letters: N names.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import timm
import torch.nn.functional as F
from torch import Generator, Tensor

from modelsoups.disk import paths, storage
from modelsoups.disk.paths import ASSETS
from modelsoups.miniature.pretraining.corpus import Corpus
from modelsoups.miniature.pretraining.icons import IconOptions, IconPretraining
from modelsoups.miniature.pretraining.training import Losses

FOLDER = ASSETS / "iconvit"
CONFIG = "config.json"


class LabelPretraining(IconPretraining):
    """The supervised pre-training of IconViT, which classifies the names of icons."""

    steps, flags = 4000, "pretrain.labels=true "
    parts, weights = ("loss", "errors"), paths.MODEL

    def __init__(self, options: IconOptions, corpus: Corpus | None = None) -> None:
        super().__init__(replace(options, shared_names=1.0), corpus)  # other names are not classes

    def build_model(self) -> tuple[Any, int, Sequence[float], Sequence[float]]:
        out = self.options.out
        with storage.atomic(out / CONFIG) as tmp:
            shutil.copyfile(FOLDER / CONFIG, tmp)
        model: Any = timm.create_model(f"local-dir:{out}", pretrained=False, num_classes=0)
        config = model.pretrained_cfg
        return model.train(), model.num_features, config["mean"], config["std"]

    def losses(self, images_BCHW: Tensor, places_B: Tensor, g: Generator) -> Losses:
        """Return the cross-entropy to minimise, the same again to print, and the error rate."""
        logits_BN = self.names(self.model(images_BCHW))
        names_B = self.corpus.shared_name_of[places_B]
        loss = F.cross_entropy(logits_BN, names_B)
        return loss, loss, (logits_BN.argmax(dim=1) != names_B).float().mean()

    def facts(self) -> dict[str, Any]:
        return {"names": self.names.out_features}
