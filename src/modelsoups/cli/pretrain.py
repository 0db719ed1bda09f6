"""`modelsoups pretrain`: IconCLIP from captioned icons or, with pretrain.labels=true, IconViT from labelled ones."""

from __future__ import annotations

from pathlib import Path

from modelsoups.config.schema import Config
from modelsoups.miniature.pretraining import captions, labels
from modelsoups.miniature.pretraining.run import PretrainOptions


def run(cfg: Config) -> bool:
    """Pre-train into cfg.pretrain.out. False: no run of the pipeline was added to, so there is no time to keep."""
    given = {} if cfg.pretrain.steps is None else {"steps": cfg.pretrain.steps}
    out, seed = Path(cfg.pretrain.out), cfg.pretrain.seed
    if cfg.pretrain.labels:
        labels.pretrain(PretrainOptions(out, seed=seed, **{"steps": labels.STEPS, **given}))
    else:
        captions.pretrain(PretrainOptions(out, seed=seed, **given))
    return False
