"""`modelsoups pretrain`: pre-trains the miniature's CLIP or, with pretrain.labels=true, its ViT."""

from pathlib import Path

from modelsoups.experiment.experiment import Experiment
from modelsoups.miniature.pretraining.captions import CaptionPretraining
from modelsoups.miniature.pretraining.labels import LabelPretraining
from modelsoups.miniature.pretraining.training import PretrainOptions, pretrain


def run(experiment: Experiment) -> bool:
    """Pre-train a model into the folder pretrain.out; return False, as it is no stage of a run."""
    given = experiment.config.pretrain
    kind = LabelPretraining if given.labels else CaptionPretraining
    steps = kind.steps if given.steps is None else given.steps
    pretrain(kind, PretrainOptions(Path(given.out), seed=given.seed, steps=steps))
    return False
