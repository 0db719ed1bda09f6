"""`modelsoups pretrain`: which pre-training the configuration asks for."""

from pathlib import Path

import pytest

from modelsoups.cli import pretrain
from modelsoups.config.compose import load
from modelsoups.experiment.experiment import Experiment
from modelsoups.miniature.pretraining.captions import CaptionPretraining
from modelsoups.miniature.pretraining.icons import IconOptions
from modelsoups.miniature.pretraining.labels import LabelPretraining
from modelsoups.miniature.pretraining.phrases import PhraseOptions, PhrasePretraining


def test_the_command_passes_its_options_and_refuses_no_steps(monkeypatch):
    seen = []
    monkeypatch.setattr(pretrain, "pretrain", lambda *given: seen.append(given))
    assert pretrain.run(Experiment(load(["pretrain.out=elsewhere", "pretrain.seed=3"]))) is False
    assert pretrain.run(Experiment(load(["pretrain.labels=true"]))) is False
    assert pretrain.run(Experiment(load(["pretrain.labels=true", "pretrain.steps=9"]))) is False
    assert pretrain.run(Experiment(load(["pretrain.model=iconvit"]))) is False
    assert pretrain.run(Experiment(load(["pretrain.model=phrase_bert"]))) is False
    out = Path("runs/pretrain")
    assert seen == [
        (CaptionPretraining, IconOptions(Path("elsewhere"), seed=3)),
        (LabelPretraining, IconOptions(out, steps=4000)),
        (LabelPretraining, IconOptions(out, steps=9)),
        (LabelPretraining, IconOptions(out, steps=4000)),
        (PhrasePretraining, PhraseOptions(out, steps=PhrasePretraining.steps)),
    ]
    with pytest.raises(ValueError, match=r"pretrain.steps=0: expected at least 1"):
        pretrain.run(Experiment(load(["pretrain.steps=0"])))
    with pytest.raises(ValueError, match=r"pretrain.labels=true means pretrain.model=iconvit"):
        pretrain.run(Experiment(load(["pretrain.model=phrase_bert", "pretrain.labels=true"])))
