"""Pre-training of IconViT on labels. Its result ships with the package.

What an ImageNet-21k ViT is to CLIP in the paper (Figures G.3 and L.2): a network of timm, of IconCLIP's size, that has
seen no caption. It classifies renderings of the icons whose name two or more designers drew, from easy to hard as
IconCLIP's; the classifier is thrown away. The folder is one that timm loads (config.json, model.safetensors).

Legend: B images of a batch, C colours, H height, W width, N names.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from modelsoups.disk import paths, provenance, storage
from modelsoups.disk.paths import ASSETS
from modelsoups.miniature.pretraining.corpus import corpus_of_icons
from modelsoups.miniature.pretraining.run import PretrainOptions, Run, fixed, train

FOLDER = ASSETS / "iconvit"
CONFIG, WEIGHTS, CARD = "config.json", paths.MODEL, "card.json"
STEPS = 4000  # of the shipped weights


class LabelsRun(Run):
    """A timm network and a head for the names."""

    parts, weights = ("loss", "errors"), WEIGHTS

    def built(self) -> tuple[Any, int, Sequence[float], Sequence[float]]:
        model: Any = timm.create_model(f"local-dir:{self.options.out}", pretrained=False, num_classes=0).train()
        return model, model.num_features, model.pretrained_cfg["mean"], model.pretrained_cfg["std"]

    def losses(self, images_BCHW: Tensor, places_B: Tensor, g: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The mean cross-entropy of the names; and, as its other part, the share of errors."""
        logits_BN, names_B = self.names(self.model(images_BCHW)), self.corpus.shared_name_of[places_B]
        loss = F.cross_entropy(logits_BN, names_B)
        return loss, loss, (logits_BN.argmax(dim=1) != names_B).float().mean()


def pretrain(options: PretrainOptions) -> dict[str, Any]:
    """Pre-train, or go on from the checkpoint in `out`; write the folder of IconViT; return its card."""
    torch.set_num_threads(options.threads)
    options = replace(options, shared_names=1.0)  # the others are no classes
    options.out.mkdir(parents=True, exist_ok=True)
    with storage.atomic(options.out / CONFIG) as tmp:
        shutil.copyfile(FOLDER / CONFIG, tmp)
    run = LabelsRun(options, corpus_of_icons())
    seconds = train(run)
    given = f"pretrain.seed={options.seed} pretrain.steps={options.steps}"
    card = {
        "made with": f"modelsoups pretrain pretrain.labels=true {given}",
        "options": fixed(options),
        "images": options.steps * options.batch_size,
        "seconds": round(seconds),
        "names": run.names.out_features,
        "provenance": provenance.record(),
    }
    storage.write_json(options.out / CARD, card)
    print(f"pretrain: done in {seconds / 60:.1f} min", flush=True)
    return card
