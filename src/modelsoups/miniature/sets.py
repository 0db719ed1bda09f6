"""The data sets of IconNet: the icon styles, rendering, number of images and classes of each.

A set's `projection` maps logits over IconNet's classes to the set's labels: None keeps all classes,
a subset keeps some (as ImageNet-R and -A do), groups take each group's largest logit (ObjectNet).
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

import torch
from torch import Generator, Tensor

from modelsoups.disk import storage
from modelsoups.disk.paths import ASSETS
from modelsoups.miniature import icons
from modelsoups.miniature.render import LOOKS, Look, render

CLASSES: list[str] = list(icons.concepts()[0])
TEMPLATES = (
    "{}", "a {}", "an icon of a {}", "a {} icon", "a picture of a {}", "a solid {}", "a bold {}",
    "an outline of a {}", "a line drawing of a {}", "a light drawing of a {}", "a thin drawing of a {}",
)  # fmt: skip
CHUNK = 256  # images that are rendered with one generator
CLUTTER = 400  # number of glyphs from which clutter is drawn


@dataclass(frozen=True)
class IconSet:
    """One data set of IconNet, with `per_class` images of each class (in IconNet-A on average)."""

    role: str  # train, holdout, test or shift
    title: str
    per_class: int
    styles: tuple[str, ...]
    look: Look
    projection: dict[str, Any] | None = None

    @property
    def label_of_class(self) -> dict[int, int]:
        """Return a dict from the index of each IconNet class in this set to its label here."""
        of = self.projection or {"indices": range(len(CLASSES))}
        groups = of["groups"] if "groups" in of else [[c] for c in of["indices"]]
        return {c: label for label, group in enumerate(groups) for c in group}

    @property
    def count(self) -> int:
        return self.per_class * len(self.label_of_class)

    @property
    def chunks(self) -> int:
        return -(-self.count // CHUNK)


FOLDERS_OF_TWO = (("basketball", "football"), ("car", "truck"), ("bus", "train"), ("coffee", "wine glass"))
_SOLID = ("ph_fill", "ph_bold", "ri_fill", "elusive", "codicon")
_LINES = ("ph_light", "ph_thin", "ri_line")
_MIXED = ("mdi_fill", "fa6_solid", "ph_fill", "ri_fill")


def _every_second(first: int) -> dict[str, Any]:
    return {"kind": "subset", "indices": list(range(first, len(CLASSES), 2))}


def _folders() -> dict[str, Any]:
    """Return which IconNet classes each class of IconObjectNet stands for: one or two of them."""
    pairs = [list(map(CLASSES.index, names)) for names in FOLDERS_OF_TWO]
    paired = set(chain.from_iterable(pairs))
    singles = [[c] for c in range(1, len(CLASSES), 2) if c not in paired]
    wanted = len(CLASSES) // 2 - len(paired)
    return {"kind": "groups", "groups": sorted(pairs + singles[:wanted])}


SETS: dict[str, IconSet] = {
    "train": IconSet("train", "IconNet train", 60, icons.IN_DISTRIBUTION, LOOKS["photo"]),
    "holdout": IconSet("holdout", "IconNet hold-out of train", 60, icons.IN_DISTRIBUTION, LOOKS["photo"]),
    "test": IconSet("test", "IconNet", 90, icons.IN_DISTRIBUTION, LOOKS["photo"]),
    "v2": IconSet("shift", "IconNetV2", 45, icons.IN_DISTRIBUTION, LOOKS["v2"]),
    "r": IconSet("shift", "IconNet-R", 90, _SOLID, LOOKS["r"], _every_second(0)),
    "sketch": IconSet("shift", "IconNet-Sketch", 45, _LINES, LOOKS["sketch"]),
    "objectnet": IconSet("shift", "IconObjectNet", 90, _MIXED, LOOKS["objectnet"], _folders()),
    "a": IconSet("shift", "IconNet-A", 90, _MIXED, LOOKS["a"], _every_second(1)),
}
RENDERER = 1  # increase if the renderer or the order of its draws changes
VERSION = storage.fingerprint(
    [RENDERER, repr(SETS), (ASSETS / "iconnet" / "concepts.json").read_text(encoding="utf-8")]
)


def icon_set(name: str) -> IconSet:
    """Return the data set of this name; a ValueError for an unknown name lists the valid names."""
    if name not in SETS:
        raise ValueError(f"data set {name}: IconNet has only {', '.join(SETS)}")
    return SETS[name]


def generator(words: str) -> Generator:
    """Return a torch random generator whose seed is a hash of the string `words`."""
    digest = hashlib.sha256(words.encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def render_glyphs(glyphs: list[int], look: Look, g: Generator) -> Tensor:
    """Render glyphs (by index) with a look; return uint8 images, (B, 3, 32, 32)."""
    clutter_KSS = icons.masks(clutter()) if look.clutter > 0 else None
    return render(icons.masks(glyphs), look, g, clutter_KSS)


@cache
def clutter() -> tuple[int, ...]:
    """Return the indices of glyphs for clutter, which show no class and resemble no test glyph."""
    own = [i for i, glyph in enumerate(icons.glyphs()) if glyph.style in icons.IN_DISTRIBUTION]
    free = [i for i in own if not icons.depicts_class(icons.glyphs()[i].name)]
    order = torch.randperm(len(free), generator=generator("clutter")).tolist()
    candidates = icons.drawable(free[i] for i in order[: 2 * CLUTTER])
    evaluated = list(chain.from_iterable(icons.by_class(icons.HELD_OUT)))
    near = icons.similar(candidates, evaluated)
    unlike = [i for i, is_near in zip(candidates, near, strict=True) if not is_near]
    return tuple(unlike[:CLUTTER])
