"""Pre-training of IconViT on labels.

IconViT represents the ImageNet-21k ViT that the paper compares with CLIP (Figures G.3 and L.2): a
network of timm, of IconCLIP's size, that learns to name the icons whose name two or more designers
drew. Its classifier is then dropped. timm can load the folder (config.json, model.safetensors).

Legend: N names.
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
from modelsoups.miniature.pretraining.training import Losses, Pretraining, PretrainOptions

FOLDER = ASSETS / "iconvit"
CONFIG = "config.json"


class LabelPretraining(Pretraining):
    """The pre-training of IconViT, with a classifier of names."""

    steps, flags = 4000, "pretrain.labels=true "
    parts, weights = ("loss", "errors"), paths.MODEL

    def __init__(self, options: PretrainOptions, corpus: Corpus) -> None:
        super().__init__(replace(options, shared_names=1.0), corpus)  # other names are not classes

    def build(self) -> tuple[Any, int, Sequence[float], Sequence[float]]:
        out = self.options.out
        with storage.atomic(out / CONFIG) as tmp:
            shutil.copyfile(FOLDER / CONFIG, tmp)
        model: Any = timm.create_model(f"local-dir:{out}", pretrained=False, num_classes=0)
        config = model.pretrained_cfg
        return model.train(), model.num_features, config["mean"], config["std"]

    def losses(self, images_BCHW: Tensor, places_B: Tensor, g: Generator) -> Losses:
        """Return the mean cross-entropy of the names, twice, and the fraction of errors."""
        logits_BN = self.names(self.model(images_BCHW))
        names_B = self.corpus.shared_name_of[places_B]
        loss = F.cross_entropy(logits_BN, names_B)
        return loss, loss, (logits_BN.argmax(dim=1) != names_B).float().mean()

    def facts(self) -> dict[str, Any]:
        return {"names": self.names.out_features}
