"""`modelsoups pretrain`: pre-trains a model of the miniatures: IconCLIP, IconViT or PhraseBERT."""

from pathlib import Path

from modelsoups.config.schema import PretrainConfig
from modelsoups.experiment.experiment import Experiment
from modelsoups.miniature.pretraining.captions import CaptionPretraining
from modelsoups.miniature.pretraining.labels import LabelPretraining
from modelsoups.miniature.pretraining.phrases import PhrasePretraining
from modelsoups.miniature.pretraining.training import Pretraining, pretrain

MODELS: dict[str, type[Pretraining]] = {
    "iconclip": CaptionPretraining,
    "iconvit": LabelPretraining,
    "phrase_bert": PhrasePretraining,
}


def run(experiment: Experiment) -> bool:
    """Pre-train a model into the folder pretrain.out; return False, as it is no stage of a run."""
    given = experiment.config.pretrain
    kind = MODELS[_model(given)]
    steps = kind.steps if given.steps is None else given.steps
    pretrain(kind, kind.options_class(Path(given.out), seed=given.seed, steps=steps))
    return False


def _model(given: PretrainConfig) -> str:
    """Return the name of the model; ValueError if pretrain.labels and pretrain.model disagree."""
    if not given.labels:
        return given.model
    if given.model == "phrase_bert":
        way_out = "leave it out for phrase_bert"
        raise ValueError(f"pretrain.labels=true means pretrain.model=iconvit; {way_out}")
    return "iconvit"
