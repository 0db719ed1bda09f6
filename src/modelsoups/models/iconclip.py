"""IconCLIP: the miniature's CLIP of 1.2 million parameters, built by open_clip from a folder of this package.

The folder holds open_clip_config.json, open_clip_model.safetensors (half precision), vocabulary.json (the BPE ids that
the tokenizer keeps, in order) and card.json (how the weights were made). It needs no network.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file
from torch import LongTensor

from modelsoups.disk.paths import ASSETS

FOLDER = ASSETS / "iconclip"
CONFIG, WEIGHTS, VOCABULARY, CARD = (
    "open_clip_config.json",
    "open_clip_model.safetensors",
    "vocabulary.json",
    "card.json",
)
Tokenizer = Callable[[Sequence[str]], LongTensor]


def load_iconclip(folder: Path = FOLDER) -> tuple[open_clip.CLIP, Tokenizer]:
    """The pre-trained model, in float32 and in evaluation mode, and its tokenizer."""
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"no IconCLIP weights in {folder}: make them with `modelsoups pretrain`")
    model = build(folder)
    model.load_state_dict({k: v.float() for k, v in load_file(folder / WEIGHTS).items()})
    return model.eval(), tokenizer(json.loads((folder / VOCABULARY).read_text(encoding="utf-8")))


def build(folder: Path = FOLDER) -> open_clip.CLIP:
    """The model of the folder's config with fresh weights, by torch's global generator."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # open_clip warns that no weights are loaded, which is intended
    try:
        return open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    finally:
        logging.root.setLevel(level)


def context_length(folder: Path = FOLDER) -> int:
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return int(config["model_cfg"]["text_cfg"]["context_length"])


def bpe_vocabulary(texts: Iterable[str]) -> list[int]:
    """The BPE ids that the texts need, sorted: padding (0) stays first and the end of text stays last."""
    ids_NT = SimpleTokenizer(context_length=context_length())(list(texts))
    return sorted({0, *ids_NT.unique().tolist()})


def tokenizer(vocabulary: Sequence[int]) -> Tokenizer:
    """CLIP's tokenizer with the ids renumbered by their place in the vocabulary."""
    bpe = SimpleTokenizer(context_length=context_length())
    place = torch.full((len(bpe.encoder),), -1)
    place[torch.tensor(vocabulary)] = torch.arange(len(vocabulary))

    def tokenize(texts: Sequence[str]) -> LongTensor:
        ids_NT = place[bpe(list(texts))]
        for text, known in zip(texts, (ids_NT >= 0).all(dim=1).tolist(), strict=True):
            if not known:
                raise ValueError(f"IconCLIP's vocabulary lacks words of {text!r}; it knows the words of icon names")
        return ids_NT  # type: ignore[return-value]

    return tokenize
