"""A pre-training that is interrupted and resumed ends with the weights of one that was not."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from modelsoups.disk import storage
from modelsoups.miniature.pretraining.captions import CaptionPretraining
from modelsoups.miniature.pretraining.corpus import corpus_of_icons
from modelsoups.miniature.pretraining.icons import IconOptions
from modelsoups.miniature.pretraining.labels import LabelPretraining
from modelsoups.miniature.pretraining.training import pretrain
from modelsoups.models import iconclip


@pytest.mark.parametrize("kind", [CaptionPretraining, LabelPretraining])
def test_pretraining_resumes_to_the_same_weights(tmp_path: Path, capsys, kind):
    def options(out: str, steps: int = 3) -> IconOptions:
        return IconOptions(tmp_path / out, steps=steps, batch_size=16, threads=1)

    corpus = corpus_of_icons()
    straight = kind(options("whole"), corpus)
    for _ in range(3):
        straight.train_step()
    first = kind(options("part"), corpus)
    first.train_step()
    first.save(1.0)
    second = kind(options("part"), corpus)
    assert second.step == 1
    assert "continuing from the checkpoint at step 1" in capsys.readouterr().out
    for _ in range(2):
        second.train_step()
    for name, weight in straight.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name
    with pytest.raises(ValueError, match="different options"):
        kind(options("part", steps=4), corpus)
    straight.write_weights()
    whole = tmp_path / "whole"
    if kind is LabelPretraining:
        loaded = timm.create_model(f"local-dir:{whole}", num_classes=0, pretrained=True)
    else:
        loaded = iconclip.load_iconclip(whole).model
    for name, weight in straight.model.state_dict().items():
        assert torch.equal(weight.half().float(), loaded.state_dict()[name].float()), name


def test_a_whole_pretraining_logs_its_steps_keeps_a_checkpoint_and_writes_its_card(tmp_path, capsys):
    options = IconOptions(tmp_path, steps=2, batch_size=16, threads=1, checkpoint_every=1, log_every=1)
    card = pretrain(LabelPretraining, options)
    assert card == storage.read_json(tmp_path / "card.json")
    assert card["made with"] == "modelsoups pretrain pretrain.labels=true pretrain.seed=0 pretrain.steps=2"
    assert card["images"] == 32
    assert (tmp_path / "checkpoint.pt").exists()
    said = capsys.readouterr().out
    assert "step 1/2" in said
    assert "step 2/2" in said
