"""The images of IconNet's data sets, rendered in chunks that depend only on set name and seed."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from modelsoups.miniature import adversarial, icons
from modelsoups.miniature.sets import CHUNK, SETS, generator, icon_set, render_glyphs

SPLIT = ("train", "holdout")  # two parts of one draw
Sample = tuple[str, np.ndarray, int]  # key ("r-00012"), image_HWC (uint8), the set's own label


def render_set(name: str, seed: int) -> Iterator[Sample]:
    for chunk in range(icon_set(name).chunks):
        yield from render_chunk(name, seed, chunk)


def render_part(name: str, seed: int, classes: Sequence[int]) -> Iterator[Sample]:
    """Yield the images of these classes alone; a label is the place of its class among them.

    They show the same glyphs as in the whole data set, but placed and blurred by other random draws.
    """
    drawn = zip(*draw_glyphs(name, seed), strict=True)
    kept = [(glyph, classes.index(c)) for glyph, c in drawn if c in set(classes)]
    for first in range(0, len(kept), CHUNK):
        glyphs, labels = map(list, zip(*kept[first : first + CHUNK], strict=True))
        images_BCHW = render_glyphs(glyphs, icon_set(name).look, generator(f"{name} {seed} {list(classes)} {first}"))
        for i, (image_CHW, label) in enumerate(zip(images_BCHW, labels, strict=True), start=first):
            yield f"{name}-{i:05d}", image_CHW.permute(1, 2, 0).contiguous().numpy(), label


def render_chunk(name: str, seed: int, chunk: int) -> list[Sample]:
    """Return one chunk of a data set: (key, uint8 image of shape (H, W, C), label) per image."""
    images_BCHW, labels = chunk_batch(name, seed, chunk)
    images_BHWC = images_BCHW.permute(0, 2, 3, 1).contiguous().numpy()
    rows = enumerate(zip(images_BHWC, labels, strict=True), start=chunk * CHUNK)
    return [(f"{name}-{i:05d}", image_HWC, label) for i, (image_HWC, label) in rows]


def chunk_batch(name: str, seed: int, chunk: int) -> tuple[Tensor, list[int]]:
    """Return a chunk's uint8 images, (B, C, H, W), and labels; ValueError for an unknown chunk."""
    wanted = icon_set(name)
    if not 0 <= chunk < wanted.chunks:
        raise ValueError(f"data set {name}: no chunk {chunk}; it has chunks 0 to {wanted.chunks - 1}")
    if name == "a":
        images_BCHW, classes = adversarial.selected(seed, chunk)
    else:
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        glyphs, classes = (values[part] for values in draw_glyphs(name, seed))
        g = generator(f"{'pool ' if name in SPLIT else ''}{name} {seed} {chunk}")
        images_BCHW = render_glyphs(glyphs, wanted.look, g)
    label_of_class = wanted.label_of_class
    return images_BCHW, [label_of_class[c] for c in classes]


@lru_cache(maxsize=4)
def draw_glyphs(name: str, seed: int) -> tuple[list[int], list[int]]:
    """Return the glyph index and the class of each image; train and holdout share no image."""
    wanted, in_holdout = icon_set(name), SETS["holdout"].per_class
    stream, per_class = name, wanted.per_class
    if name in SPLIT:
        stream, per_class = "pool", SETS["train"].per_class + in_holdout
    g = generator(f"{stream} {seed} plan")
    classes_B = torch.tensor(sorted(wanted.label_of_class)).repeat_interleave(per_class)
    classes = classes_B[torch.randperm(len(classes_B), generator=g)].tolist()
    glyphs = icons.random_glyphs(wanted.styles, classes, g)
    if name not in SPLIT:
        return glyphs, classes
    seen: Counter[int] = Counter()
    kept = []
    for i, c in enumerate(classes):
        seen[c] += 1
        if (seen[c] <= in_holdout) == (name == "holdout"):
            kept.append(i)
    return [glyphs[i] for i in kept], [classes[i] for i in kept]
