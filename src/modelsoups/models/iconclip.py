"""IconCLIP: the miniature experiment's CLIP of 1.2 million parameters, part of the package.

Its folder contains the configuration and the weights (in half precision) in open_clip's format, the
token ids that its tokenizer uses (vocabulary.json), and how it was trained (card.json).
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import LongTensor

from modelsoups.config.models import ModelConfig
from modelsoups.disk import storage
from modelsoups.disk.paths import ASSETS
from modelsoups.models.pretrained import Clip, Encoder, quiet

if TYPE_CHECKING:
    import open_clip

FOLDER = ASSETS / "iconclip"
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
VOCABULARY, CARD = "vocabulary.json", "card.json"
Tokenizer = Callable[[Sequence[str]], LongTensor]


def load_encoder(model: ModelConfig) -> Encoder:
    clip = load_iconclip()
    return clip.image_encoder(clip.model.visual.output_dim)


def load_clip(model: ModelConfig) -> Clip:
    return load_iconclip()


def load_iconclip(folder: Path = FOLDER) -> Clip:
    """Return the IconCLIP in a folder, in float32 and evaluation mode, with its tokenizer."""
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"no IconCLIP weights in {folder}: train them with `modelsoups pretrain`")
    model = build(folder)
    halves = load_file(folder / WEIGHTS)
    model.load_state_dict({key: tensor.float() for key, tensor in halves.items()})
    return Clip(model.eval(), tokenizer(storage.read_json(folder / VOCABULARY)))


def build(folder: Path = FOLDER) -> "open_clip.CLIP":
    """Return an IconCLIP with random weights, configured by open_clip_config.json in the folder."""
    import open_clip  # takes seconds, because it imports transformers and timm

    with quiet():
        return open_clip.create_model(f"local-dir:{folder}", load_weights=False)


def context_length() -> int:
    return int(storage.read_json(FOLDER / CONFIG)["model_cfg"]["text_cfg"]["context_length"])


def bpe_vocabulary(texts: Iterable[str]) -> list[int]:
    """Return the sorted ids of all BPE tokens in the texts: padding (0) first, end of text last."""
    from open_clip.tokenizer import SimpleTokenizer

    ids_NT = SimpleTokenizer(context_length=context_length())(list(texts))
    return sorted({0, *ids_NT.unique().tolist()})


def tokenizer(vocabulary: Sequence[int]) -> Tokenizer:
    """Return CLIP's tokenizer with each token id replaced by its position in the vocabulary."""
    from open_clip.tokenizer import SimpleTokenizer

    bpe = SimpleTokenizer(context_length=context_length())
    position = torch.full((len(bpe.encoder),), -1)
    position[torch.tensor(vocabulary)] = torch.arange(len(vocabulary))

    def tokenize(texts: Sequence[str]) -> LongTensor:
        ids_NT = position[bpe(list(texts))]
        known_N = (ids_NT >= 0).all(dim=1)
        for text, known in zip(texts, known_N.tolist(), strict=True):
            if not known:
                raise ValueError(f"{text!r} has words that are not in IconCLIP's vocabulary; use names of icons")
        return ids_NT  # type: ignore[return-value]

    return tokenize
