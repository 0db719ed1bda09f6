"""`modelsoups pretrain`: which pre-training the configuration asks for."""

from pathlib import Path

import pytest

from modelsoups.cli import pretrain
from modelsoups.config.compose import load
from modelsoups.experiment.experiment import Experiment
from modelsoups.miniature.pretraining.captions import CaptionPretraining
from modelsoups.miniature.pretraining.labels import LabelPretraining
from modelsoups.miniature.pretraining.training import PretrainOptions


def test_the_command_passes_its_options_and_refuses_no_steps(monkeypatch):
    seen = []
    monkeypatch.setattr(pretrain, "pretrain", lambda *given: seen.append(given))
    assert pretrain.run(Experiment(load(["pretrain.out=elsewhere", "pretrain.seed=3"]))) is False
    assert pretrain.run(Experiment(load(["pretrain.labels=true"]))) is False
    assert pretrain.run(Experiment(load(["pretrain.labels=true", "pretrain.steps=9"]))) is False
    out = Path("runs/pretrain")
    assert seen == [
        (CaptionPretraining, PretrainOptions(Path("elsewhere"), seed=3)),
        (LabelPretraining, PretrainOptions(out, steps=4000)),
        (LabelPretraining, PretrainOptions(out, steps=9)),
    ]
    with pytest.raises(ValueError, match=r"pretrain.steps=0: expected at least 1"):
        pretrain.run(Experiment(load(["pretrain.steps=0"])))
