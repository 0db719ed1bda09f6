"""`modelsoups pretrain`: makes IconCLIP from captions or, with pretrain.labels=true, IconViT."""

from __future__ import annotations

from pathlib import Path

from modelsoups.config.schema import Config
from modelsoups.miniature.pretraining.captions import CaptionPretraining
from modelsoups.miniature.pretraining.labels import LabelPretraining
from modelsoups.miniature.pretraining.training import PretrainOptions, pretrain


def run(cfg: Config) -> bool:
    """Pre-train into cfg.pretrain.out. False: nothing was added to a run of the pipeline."""
    kind = LabelPretraining if cfg.pretrain.labels else CaptionPretraining
    steps = kind.steps if cfg.pretrain.steps is None else cfg.pretrain.steps
    pretrain(kind, PretrainOptions(Path(cfg.pretrain.out), seed=cfg.pretrain.seed, steps=steps))
    return False
