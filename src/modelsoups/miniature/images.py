"""The images of IconNet's sets: a function of the set's name and the seed alone.

They are rendered in chunks with a generator each, so that chunks can be made side by side.

Legend: B images of a chunk, C colours, H height, W width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from modelsoups.miniature import adversarial, icons
from modelsoups.miniature.sets import CHUNK, SETS, IconSet, generator, icon_set, render_glyphs

Sample = tuple[str, np.ndarray, int]  # key ("r-00012"), image_HWC (uint8), label in the set's own label space


def render_set(name: str, seed: int) -> Iterator[Sample]:
    """Every image of a set, in order."""
    for chunk in range(icon_set(name).chunks):
        yield from render_chunk(name, seed, chunk)


def render_chunk(name: str, seed: int, chunk: int) -> list[Sample]:
    """One chunk of render_set(name, seed)."""
    images_BCHW, labels = chunk_batch(name, seed, chunk)
    images_BHWC = images_BCHW.permute(0, 2, 3, 1).contiguous().numpy()
    rows = enumerate(zip(images_BHWC, labels, strict=True), start=chunk * CHUNK)
    return [(f"{name}-{i:05d}", image_HWC, label) for i, (image_HWC, label) in rows]


def chunk_batch(name: str, seed: int, chunk: int) -> tuple[Tensor, list[int]]:
    """images_BCHW (uint8) and labels of one chunk; ValueError if there is no such set or chunk."""
    wanted = icon_set(name)
    if not 0 <= chunk < wanted.chunks:
        raise ValueError(f"data set {name}: no chunk {chunk}; it has {wanted.chunks}")
    if name == "a":
        images_BCHW, classes = adversarial.selected(seed, chunk)
    else:
        drawn = draw_glyphs(name, seed)
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        g = generator(f"{drawn.stream} {seed} {chunk}")
        images_BCHW, classes = render_glyphs(drawn.glyphs[part], wanted.look, g), drawn.classes[part]
    label_of_class = wanted.label_of_class
    return images_BCHW, [label_of_class[c] for c in classes]


@dataclass(frozen=True)
class DrawnGlyphs:
    """The glyph and the class of every image of a set, in order. stream names the set's generators."""

    stream: str
    glyphs: list[int]
    classes: list[int]


@lru_cache(maxsize=4)
def draw_glyphs(name: str, seed: int) -> DrawnGlyphs:
    """Random glyphs, equally many of each class, in random order.

    Train and hold-out share one draw: the first glyphs of each class are the hold-out's.
    """
    if name not in ("train", "holdout"):
        return _draw(name, icon_set(name), icon_set(name).per_class, seed)
    in_holdout = SETS["holdout"].per_class
    both = _draw("pool", SETS["train"], SETS["train"].per_class + in_holdout, seed)
    part = DrawnGlyphs(f"pool {name}", [], [])
    seen: Counter[int] = Counter()
    for glyph, c in zip(both.glyphs, both.classes, strict=True):
        seen[c] += 1
        if (seen[c] <= in_holdout) == (name == "holdout"):
            part.glyphs.append(glyph)
            part.classes.append(c)
    return part


def _draw(stream: str, wanted: IconSet, per_class: int, seed: int) -> DrawnGlyphs:
    g = generator(f"{stream} {seed} plan")
    classes_B = torch.tensor(sorted(wanted.label_of_class)).repeat_interleave(per_class)
    classes = classes_B[torch.randperm(len(classes_B), generator=g)].tolist()
    return DrawnGlyphs(stream, icons.random_glyphs(wanted.styles, classes, g), classes)
