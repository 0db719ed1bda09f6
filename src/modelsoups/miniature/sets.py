"""The data sets of IconNet: which glyphs, which rendering, how many images, and the label space of each.

The bytes of a set depend on its name and the seed alone. Images are rendered in chunks with a generator each, so that
chunks can be made side by side. Train and hold-out are two parts of one pool of training images. A set's `projection`
says how logits over the classes become logits over the set's own labels: None (the classes), a subset of them
(ImageNet-R, -A), or groups of which the largest counts (ObjectNet's folders).

Legend: B images of a chunk, C colours, H height, W width, S the side of a mask.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from modelsoups.disk import storage
from modelsoups.disk.paths import ASSETS
from modelsoups.miniature import icons
from modelsoups.miniature.render import Look, render

CLASSES: list[str] = list(icons.concepts()[0])
TEMPLATES: tuple[str, ...] = (
    "{}",
    "a {}",
    "an icon of a {}",
    "a {} icon",
    "a picture of a {}",
    "a solid {}",
    "a bold {}",
    "an outline of a {}",
    "a line drawing of a {}",
    "a light drawing of a {}",
    "a thin drawing of a {}",
)
CHUNK = 256
CLUTTER = 400  # glyphs that clutter is drawn from


@dataclass(frozen=True)
class IconSet:
    """One data set. `per_class` images of each of `classes` (on average where a selection was made)."""

    role: str  # train, holdout, test or shift
    title: str
    per_class: int
    styles: tuple[str, ...]
    look: Look
    projection: dict[str, Any] | None = None

    @property
    def label_of_class(self) -> dict[int, int]:
        """The label of each class that the set has."""
        if self.projection is None:
            return {c: c for c in range(len(CLASSES))}
        if self.projection["kind"] == "subset":
            return {c: label for label, c in enumerate(self.projection["indices"])}
        return {c: label for label, group in enumerate(self.projection["groups"]) for c in group}

    @property
    def count(self) -> int:
        return self.per_class * len(self.label_of_class)


FOLDERS_OF_TWO = (("basketball", "football"), ("car", "truck"), ("bus", "train"), ("coffee", "wine glass"))
_SOLID = ("ph_fill", "ph_bold", "ri_fill", "elusive", "codicon")
_LINES = ("ph_light", "ph_thin", "ri_line")
_MIXED = ("mdi_fill", "fa6_solid", "ph_fill", "ri_fill")

PHOTO = Look(occluded=0.45, noise=(0.06, 0.30))
LOOKS = {
    "v2": Look(scale=(0.43, 0.91), turn=16, shift=0.18, contrast=(0.145, 0.62), occluded=0.5, blur=0.45,
               noise=(0.06, 0.31)),
    "r": Look(scale=(0.55, 0.95), turn=20, shift=0.10, rich=1, dark=0.5, inverted=0.35, contrast=(0.2, 0.7),
              stripes=0.5, clutter=0.5, occluded=0.25, blur=0.2, noise=(0.05, 0.23)),
    "sketch": Look(scale=(0.5, 0.95), turn=12, shift=0.12, white=1, contrast=(0.3, 0.85), occluded=0.25, blur=0.3,
                   noise=(0.06, 0.27)),
    "objectnet": Look(scale=(0.5, 0.95), turn=45, perspective=0.3, shift=0.15, rich=1, dark=0.5, inverted=0.3,
                      contrast=(0.2, 0.7), clutter=0.5, occluded=0.3, blur=0.3, noise=(0.05, 0.22)),
    "a": Look(scale=(0.45, 0.9), turn=30, perspective=0.15, shift=0.15, rich=1, dark=0.5, inverted=0.3,
              contrast=(0.18, 0.7), stripes=0.4, clutter=0.5, occluded=0.4, blur=0.3, noise=(0.04, 0.20)),
}  # fmt: skip


def _subset(first: int) -> dict[str, Any]:
    return {"kind": "subset", "indices": list(range(first, len(CLASSES), 2))}


def _folders() -> dict[str, Any]:
    """Half of the classes, of which FOLDERS_OF_TWO share theirs."""
    pairs = [[CLASSES.index(name) for name in pair] for pair in FOLDERS_OF_TWO]
    paired = {c for pair in pairs for c in pair}
    singles = [[c] for c in range(1, len(CLASSES), 2) if c not in paired][: len(CLASSES) // 2 - len(paired)]
    return {"kind": "groups", "groups": sorted(pairs + singles)}


SETS: dict[str, IconSet] = {
    "train": IconSet("train", "IconNet train", 60, icons.IN_DISTRIBUTION, PHOTO),
    "holdout": IconSet("holdout", "IconNet hold-out of train", 60, icons.IN_DISTRIBUTION, PHOTO),
    "test": IconSet("test", "IconNet", 90, icons.IN_DISTRIBUTION, PHOTO),
    "v2": IconSet("shift", "IconNetV2", 45, icons.IN_DISTRIBUTION, LOOKS["v2"]),
    "r": IconSet("shift", "IconNet-R", 90, _SOLID, LOOKS["r"], _subset(0)),
    "sketch": IconSet("shift", "IconNet-Sketch", 45, _LINES, LOOKS["sketch"]),
    "objectnet": IconSet("shift", "IconObjectNet", 90, _MIXED, LOOKS["objectnet"], _folders()),
    "a": IconSet("shift", "IconNet-A", 90, _MIXED, LOOKS["a"], _subset(1)),
}


RENDERER = 1  # count up when the renderer or the order of its draws changes
VERSION = storage.fingerprint(
    [RENDERER, repr(SETS), (ASSETS / "iconnet" / "concepts.json").read_text(encoding="utf-8")]
)


def set_size(name: str) -> int:
    """How many images a set has."""
    return _set(name).count


def render_set(name: str, seed: int) -> Iterator[tuple[str, np.ndarray, int]]:
    """Key ("r-00012"), image_HWC (uint8) and label, in the set's own label space, of every image of a set."""
    for chunk in range(chunks(name)):
        yield from render_chunk(name, seed, chunk)


def chunks(name: str) -> int:
    """How many chunks a set is made in."""
    return -(-set_size(name) // CHUNK)


def render_chunk(name: str, seed: int, chunk: int) -> list[tuple[str, np.ndarray, int]]:
    """One chunk of render_set(name, seed)."""
    if not 0 <= chunk < chunks(name):
        raise ValueError(f"{name}: no chunk {chunk}; it has {chunks(name)}")
    if name == "a":
        from modelsoups.miniature.adversarial import selected

        images_BCHW, classes = selected(seed, chunk)
    else:
        plan = _plan(name, seed)
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        images_BCHW = render_glyphs(plan.glyphs[part], _set(name).look, generator(f"{plan.stream} {seed} {chunk}"))
        classes = plan.classes[part]
    label_of = _set(name).label_of_class
    images_BHWC = images_BCHW.permute(0, 2, 3, 1).contiguous().numpy()
    keys = (f"{name}-{chunk * CHUNK + i:05d}" for i in range(len(classes)))
    return [(k, image_HWC, label_of[c]) for k, image_HWC, c in zip(keys, images_BHWC, classes, strict=True)]


def generator(words: str) -> Generator:
    """A generator whose seed is a hash of the words."""
    digest = hashlib.sha256(words.encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@dataclass(frozen=True)
class _Plan:
    """The glyph and the class of every image of a set, in order."""

    stream: str
    glyphs: list[int]
    classes: list[int]


def _set(name: str) -> IconSet:
    if name not in SETS:
        raise ValueError(f"no IconNet set {name}; there are {', '.join(SETS)}")
    return SETS[name]


@lru_cache(maxsize=4)
def _plan(name: str, seed: int) -> _Plan:
    """Every class as often, its glyphs at random, shuffled. Train and hold-out share a pool, split by class."""
    if name in ("train", "holdout"):
        train, holdout = SETS["train"].per_class, SETS["holdout"].per_class
        pool = _draw_plan("pool", SETS["train"], train + holdout, seed)
        seen = dict.fromkeys(range(len(CLASSES)), 0)
        keep = []
        for i, c in enumerate(pool.classes):
            seen[c] += 1
            if (seen[c] <= holdout) == (name == "holdout"):
                keep.append(i)
        return _Plan(f"pool {name}", [pool.glyphs[i] for i in keep], [pool.classes[i] for i in keep])
    return _draw_plan(name, _set(name), _set(name).per_class, seed)


def _draw_plan(stream: str, icon_set: IconSet, per_class: int, seed: int) -> _Plan:
    g = generator(f"{stream} {seed} plan")
    available = icons.by_class(icon_set.styles)
    classes = torch.tensor(sorted(icon_set.label_of_class)).repeat_interleave(per_class)
    classes = classes[torch.randperm(len(classes), generator=g)]
    which = torch.rand(len(classes), generator=g)
    glyphs = [available[c][int(u * len(available[c]))] for c, u in zip(classes.tolist(), which.tolist(), strict=True)]
    return _Plan(stream, glyphs, classes.tolist())


def render_glyphs(glyphs: list[int], look: Look, g: Generator) -> Tensor:
    """images_BCHW of glyphs, in a look."""
    clutter_KSS = icons.masks(clutter()) if look.clutter > 0 else None
    return render(icons.masks(glyphs), look, g, clutter_KSS)


@lru_cache(maxsize=1)
def clutter() -> tuple[int, ...]:
    """Glyphs for clutter: by the in-distribution designers, of no class, and like no evaluation glyph."""
    glyphs = icons.glyphs()
    free = [i for i, g in enumerate(glyphs) if g.style in icons.IN_DISTRIBUTION and not icons.depicts_class(g.name)]
    order = torch.randperm(len(free), generator=generator("clutter")).tolist()
    some = icons.drawable(free[i] for i in order[: 2 * CLUTTER])
    evaluated = [i for group in icons.by_class(icons.HELD_OUT) for i in group]
    unlike = [i for i, near in zip(some, icons.similar(some, evaluated), strict=True) if not near]
    return tuple(unlike[:CLUTTER])
