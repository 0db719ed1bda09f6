"""IconCLIP as it ships with the package: its tokenizer and its weights."""

from __future__ import annotations

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from modelsoups.models import iconclip


def test_tokenizer_round_trip():
    vocabulary = iconclip.bpe_vocabulary(["a bicycle", "an icon of a wine glass"])
    tokenize = iconclip.tokenizer(vocabulary)
    ids_NT = tokenize(["a bicycle", "a wine glass"])
    bpe = SimpleTokenizer(context_length=iconclip.context_length())
    assert [[vocabulary[i] for i in row] for row in ids_NT.tolist()] == bpe(["a bicycle", "a wine glass"]).tolist()
    assert int(ids_NT.max()) == len(vocabulary) - 1  # the end of text, where CLIP reads
    with pytest.raises(ValueError, match="'a zebra' has words that are not in IconCLIP's vocabulary"):
        tokenize(["a zebra"])


def test_the_shipped_weights_are_small_and_ready_for_evaluation():
    clip = iconclip.load_iconclip()
    assert (iconclip.FOLDER / iconclip.WEIGHTS).stat().st_size <= 5e6
    assert all(p.dtype == torch.float32 for p in clip.model.parameters())
    assert not clip.model.training
    assert clip.tokenize(["bicycle", "car"]).shape == (2, iconclip.context_length())


def test_missing_weights_say_how_to_make_them(tmp_path):
    with pytest.raises(ValueError, match="modelsoups pretrain"):
        iconclip.load_iconclip(tmp_path)
