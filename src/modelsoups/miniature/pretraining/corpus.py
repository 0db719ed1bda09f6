"""What the miniature's models are pre-trained on: the glyphs that no data set holds, and their names."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from modelsoups.miniature import icons, sets
from modelsoups.models.iconclip import bpe_vocabulary

TEMPLATES = ("{}", "a {}", "an icon of a {}", "a {} icon", "a picture of a {}")


@dataclass(frozen=True)
class Corpus:
    """The glyphs of pre-training, their captions, and the name each counts as."""

    masks_GSS: Tensor
    glyphs: list[icons.Glyph]
    name_of: Tensor  # by glyph
    shared: Tensor  # places of glyphs whose name two or more designers drew
    single: Tensor  # of the others
    shared_name_of: Tensor  # by glyph: the class of the auxiliary loss, or -1
    vocabulary: list[int]


def corpus_of_icons() -> Corpus:
    everything = icons.glyphs()
    pool = icons.pretraining_pool().indices
    glyphs = [everything[i] for i in pool]
    designers = defaultdict(set)
    for g in glyphs:
        designers[g.caption].add(g.designer)
    names = {name: n for n, name in enumerate(sorted(designers))}
    shared_names = {name: n for n, name in enumerate(sorted(k for k, v in designers.items() if len(v) > 1))}
    shared_name_of = torch.tensor([shared_names.get(g.caption, -1) for g in glyphs])
    captions = {style.caption for style in icons.STYLES.values()}
    texts = {g.caption for g in glyphs} | {g.name.replace("-", " ") for g in glyphs} | set(sets.CLASSES)
    texts |= {t.format("icon") for t in (*TEMPLATES, *sets.TEMPLATES, *captions)}
    return Corpus(
        icons.masks(pool),
        glyphs,
        torch.tensor([names[g.caption] for g in glyphs]),
        (shared_name_of >= 0).nonzero()[:, 0],
        (shared_name_of < 0).nonzero()[:, 0],
        shared_name_of,
        bpe_vocabulary(sorted(texts)),
    )
