"""`modelsoups pretrain`: trains IconCLIP on captions or, with pretrain.labels=true, IconViT."""

from pathlib import Path

from modelsoups.experiment.experiment import Experiment
from modelsoups.miniature.pretraining.captions import CaptionPretraining
from modelsoups.miniature.pretraining.labels import LabelPretraining
from modelsoups.miniature.pretraining.training import PretrainOptions, pretrain


def run(experiment: Experiment) -> bool:
    """Pre-train into the folder pretrain.out; return False, since no run has changed."""
    given = experiment.config.pretrain
    kind = LabelPretraining if given.labels else CaptionPretraining
    steps = kind.steps if given.steps is None else given.steps
    pretrain(kind, PretrainOptions(Path(given.out), seed=given.seed, steps=steps))
    return False
