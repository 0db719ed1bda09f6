"""The pre-training data of IconCLIP and IconViT: glyphs, their names and the vocabulary."""

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from modelsoups.miniature import icons, sets
from modelsoups.models.iconclip import bpe_vocabulary

TEMPLATES = ("{}", "a {}", "an icon of a {}", "a {} icon", "a picture of a {}")


@dataclass(frozen=True)
class Corpus:
    """The pre-training data: glyphs (icons) as masks, indices of their names, a BPE vocabulary."""

    masks_GSS: Tensor
    glyphs: list[icons.Glyph]
    name_of: Tensor  # the index of each glyph's name
    shared: Tensor  # indices of the glyphs whose name two or more designers drew
    single: Tensor  # indices of the others
    shared_name_of: Tensor  # for each glyph, its class in the auxiliary loss, or -1
    vocabulary: list[int]


def corpus_of_icons() -> Corpus:
    indices = icons.pretraining_glyphs().indices
    glyphs = [icons.glyphs()[i] for i in indices]
    designers = defaultdict(set)
    for glyph in glyphs:
        designers[glyph.caption].add(icons.STYLES[glyph.style].designer)
    names = sorted(designers)
    shared = [name for name in names if len(designers[name]) > 1]
    number_of_name = {name: n for n, name in enumerate(names)}
    class_of_name = {name: n for n, name in enumerate(shared)}
    shared_name_of = torch.tensor([class_of_name.get(glyph.caption, -1) for glyph in glyphs])
    return Corpus(
        icons.masks(indices),
        glyphs,
        torch.tensor([number_of_name[glyph.caption] for glyph in glyphs]),
        (shared_name_of >= 0).nonzero()[:, 0],
        (shared_name_of < 0).nonzero()[:, 0],
        shared_name_of,
        bpe_vocabulary(sorted(_texts(glyphs))),
    )


def _texts(glyphs: list[icons.Glyph]) -> set[str]:
    """Return texts that together contain all words of pre-training captions and prompts."""
    names = {glyph.caption for glyph in glyphs} | {glyph.name.replace("-", " ") for glyph in glyphs}
    of_styles = [style.caption for style in icons.STYLES.values()]
    templates = (*TEMPLATES, *sets.TEMPLATES, *of_styles)
    return names | set(sets.CLASSES) | {template.format("icon") for template in templates}
