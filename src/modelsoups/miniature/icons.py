"""Icon glyphs as 48x48 grey masks, and the selection of the glyphs for pre-training.

The glyphs come from the font files in the package qtawesome, which is not imported. A glyph has a
style (one designer's icons in one weight), a name ("bicycle") and a concept from concepts.json: a
class of IconNet, another concept, or None. Shape letters: G glyphs, S pixels.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Generator, Tensor

from modelsoups.disk import storage
from modelsoups.disk.paths import ASSETS

SIDE = 48
FILL = 0.96  # length of a glyph's longer side, as a fraction of SIDE
NEAR_DUPLICATE = 0.92  # smallest cosine of two masks that count as near-duplicates


@dataclass(frozen=True)
class Style:
    """An icon font. Its glyph names match the regex `pattern`, whose group 1 is the icon's name."""

    designer: str
    font: str
    charmap: str
    pattern: str
    caption: str  # a template of pre-training captions
    in_distribution: bool  # if not, glyphs of IconNet's classes are held out from pre-training


_TABLE = storage.read_json(ASSETS / "iconnet" / "styles.json")
STYLES = {name: Style(**row) for name, row in _TABLE.items()}
IN_DISTRIBUTION = tuple(name for name, style in STYLES.items() if style.in_distribution)
HELD_OUT = tuple(name for name, style in STYLES.items() if not style.in_distribution)


@dataclass(frozen=True)
class Glyph:
    """One icon in one style; `concept` says what it shows, such as a class of IconNet."""

    style: str
    name: str
    codepoint: int  # its index in the style's font
    concept: str | None

    @property
    def caption(self) -> str:
        """Return the concept or, if it is None, the icon's name with spaces for hyphens."""
        return self.concept or self.name.replace("-", " ")


@cache
def fonts_dir() -> Path:
    """Return the folder of qtawesome's font files; ValueError if qtawesome is not installed."""
    spec = find_spec("qtawesome")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("IconNet's fonts are in qtawesome, which is not installed: pip install qtawesome==1.4.2")
    return Path(next(iter(spec.submodule_search_locations))) / "fonts"


def font_file(name: str) -> Path:
    """Return the path of a font or charmap; ValueError if the installed qtawesome lacks it."""
    path = fonts_dir() / name
    if not path.is_file():
        raise ValueError(f"the icon font {name} is not in {path.parent}: pip install qtawesome==1.4.2")
    return path


@cache
def concepts() -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Return two dicts: class -> its icon names, and icon name -> what the icon shows ("car")."""
    table = storage.read_json(ASSETS / "iconnet" / "concepts.json")
    classes = {concept: tuple(names) for concept, names in table["classes"].items()}
    groups = chain.from_iterable(group.items() for group in table.values())
    return classes, {name: concept for concept, names in groups for name in names}


@cache
def glyphs() -> tuple[Glyph, ...]:
    """Return all glyphs of all styles, in the order of styles.json and of each style's charmap."""
    found = []
    for style_name, style in STYLES.items():
        charmap = storage.read_json(font_file(style.charmap))
        for key, codepoint in charmap.items():
            if match := re.fullmatch(style.pattern, key):
                concept = _concept(match[1], style_name)
                found.append(Glyph(style_name, match[1], int(codepoint, 16), concept))
    return tuple(found)


def _concept(name: str, style: str) -> str | None:
    """Return what an icon shows, by its name, or None; in held-out styles "car-2" shows a "car"."""
    classes, concept_of = concepts()
    base = re.sub(r"-(?:\d+|simple)$", "", name)  # Remix numbers variants, Phosphor has "-simple"
    is_variant = style in HELD_OUT and concept_of.get(base) in classes
    return concept_of.get(name, concept_of[base] if is_variant else None)


@cache
def _font(name: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(font_file(name)), 144)


@cache
def _mask_SS(index: int) -> np.ndarray | None:
    """Return a glyph as a 48x48 mask, cropped, scaled and centred; None if it is (nearly) blank."""
    glyph = glyphs()[index]
    canvas = Image.new("L", (256, 256), 0)
    font = _font(STYLES[glyph.style].font)
    ImageDraw.Draw(canvas).text((40, 40), chr(glyph.codepoint), font=font, fill=255)
    box = canvas.getbbox()
    if box is None or max(box[2] - box[0], box[3] - box[1]) < 20:
        return None
    ink = canvas.crop(box)
    zoom = SIDE * FILL / max(ink.size)
    size = (max(1, round(ink.width * zoom)), max(1, round(ink.height * zoom)))
    ink = ink.resize(size, Image.Resampling.LANCZOS if zoom < 1 else Image.Resampling.BICUBIC)
    mask = Image.new("L", (SIDE, SIDE), 0)
    mask.paste(ink, ((SIDE - ink.width) // 2, (SIDE - ink.height) // 2))
    return np.asarray(mask)


def drawable(indices: Iterable[int]) -> list[int]:
    return [i for i in indices if _mask_SS(i) is not None]


def masks(indices: Sequence[int]) -> Tensor:
    """Return the uint8 masks, (G, 48, 48), of glyphs by index; none of them may be blank."""
    found_GSS = [mask_SS for mask_SS in map(_mask_SS, indices) if mask_SS is not None]
    assert len(found_GSS) == len(indices), "a glyph without ink"
    return torch.from_numpy(np.stack(found_GSS))


def by_class(styles: Sequence[str]) -> list[list[int]]:
    """Return, for each class, a list of the indices of the glyphs that show it in these styles."""
    position = {concept: c for c, concept in enumerate(concepts()[0])}
    found: list[list[int]] = [[] for _ in position]
    for i, glyph in enumerate(glyphs()):
        if glyph.style in styles and glyph.concept in position:
            found[position[glyph.concept]].append(i)
    return found


def random_glyphs(styles: Sequence[str], classes: Sequence[int], generator: Generator) -> list[int]:
    """Return, for each class in `classes`, the index of a random glyph of that class."""
    available = by_class(styles)
    draws = torch.rand(len(classes), generator=generator).tolist()
    return [available[c][int(u * len(available[c]))] for c, u in zip(classes, draws, strict=True)]


def _words(name: str) -> tuple[str, ...]:
    """Return the words of a hyphenated icon name, without the "s" of plurals."""
    return tuple(w[:-1] if len(w) > 3 and w.endswith("s") else w for w in name.split("-"))


@cache
def _class_words() -> frozenset[tuple[str, ...]]:
    return frozenset(map(_words, chain.from_iterable(concepts()[0].values())))


def depicts_class(name: str) -> bool:
    """Return whether an icon name includes a class's icon name, as "book-open" includes "book"."""
    words = _words(name)
    spans = combinations(range(len(words) + 1), 2)
    return any(words[start:end] in _class_words() for start, end in spans)


def is_held_out(glyph: Glyph) -> bool:
    """Return whether a glyph is only for tests: it shows an IconNet class in a test-only style."""
    return glyph.style in HELD_OUT and (glyph.concept in concepts()[0] or depicts_class(glyph.name))


@dataclass(frozen=True)
class PretrainingGlyphs:
    """The glyphs for pre-training, and how many are left out as held-out or near-duplicate."""

    indices: tuple[int, ...]
    held_out: int  # see is_held_out
    near_duplicates: int  # look like an evaluation glyph of a held-out designer


@cache
def pretraining_glyphs() -> PretrainingGlyphs:
    """Return the glyphs for pre-training: all but the test-only ones and near-duplicates of those.

    Glyphs in IconNet's training set are kept, as CLIP has seen images like those of ImageNet.
    """
    everything = drawable(range(len(glyphs())))
    held_out = [i for i in everything if is_held_out(glyphs()[i])]
    evaluated = [i for i in held_out if glyphs()[i].concept in concepts()[0]]
    in_distribution = set(chain.from_iterable(by_class(IN_DISTRIBUTION)))
    rest = sorted(set(everything) - set(held_out))
    near = similar(rest, evaluated)
    kept = [i for i, is_near in zip(rest, near, strict=True) if i in in_distribution or not is_near]
    return PretrainingGlyphs(tuple(kept), len(held_out), len(rest) - len(kept))


def similar(indices: Sequence[int], references: Sequence[int]) -> list[bool]:
    """Return, for each of `indices`, whether its mask nearly equals the mask of any reference."""
    both = [masks(x).flatten(1).float() for x in (indices, references)]
    unit_GD, references_RD = (F.normalize(masks_GD, dim=1) for masks_GD in both)
    best_G = torch.cat([(part_GD @ references_RD.T).amax(dim=1) for part_GD in unit_GD.split(1024)])
    return (best_G > NEAR_DUPLICATE).tolist()
