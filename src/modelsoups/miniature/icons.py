"""The glyphs: icon fonts that the qtawesome package ships, as named 48x48 masks, and what pre-training may not see.

Only the font files are read; neither qtawesome nor Qt is imported. A glyph has a style (a designer's weight), a name
("bicycle") and, by the table assets/iconnet/concepts.json, a concept: a class of IconNet, another concept, or none.

Legend: G glyphs, S the side of a mask.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from modelsoups.disk.paths import ASSETS

SIDE = 48
FILL = 0.96  # of the mask's side, by the longer side of the glyph
NEAR_DUPLICATE = 0.92  # cosine of two masks


@dataclass(frozen=True)
class Style:
    """One weight of one designer: names of the charmap that match `pattern`, whose group 1 is the icon's name."""

    designer: str
    font: str
    charmap: str
    pattern: str
    caption: str  # how pre-training may describe it


def _styles() -> dict[str, Style]:
    fa6, fa5 = "fontawesome6-{}-webfont{}-6.7.2", "fontawesome5-solid-webfont{}-5.15.4"
    mdi, phosphor, remix = "materialdesignicons6-webfont{}-6.9.96", "phosphor{}-1.3.0", "remixicon{}-2.5.0"
    weights = "bold|fill|thin|light"
    table = {
        "mdi_fill": ("mdi", mdi, r"(?!.*-outline$)(.+)", "a solid {}"),
        "mdi_outline": ("mdi", mdi, r"(.+)-outline", "an outline of a {}"),
        "fa6_solid": ("fa", fa6.format("solid", "{}"), r"(.+)", "a solid {}"),
        "fa6_regular": ("fa", fa6.format("regular", "{}"), r"(.+)", "an outline of a {}"),
        "fa5_solid": ("fa", fa5, r"(.+)", "a solid {}"),
        "ph_fill": ("phosphor", phosphor, r"(.+)-fill", "a solid {}"),
        "ph_bold": ("phosphor", phosphor, r"(.+)-bold", "a bold {}"),
        "ph_regular": ("phosphor", phosphor, rf"(?!.*-(?:{weights})$)(.+)", "a line drawing of a {}"),
        "ph_light": ("phosphor", phosphor, r"(.+)-light", "a light drawing of a {}"),
        "ph_thin": ("phosphor", phosphor, r"(.+)-thin", "a thin drawing of a {}"),
        "ri_fill": ("remix", remix, r"(.+)-fill", "a solid {}"),
        "ri_line": ("remix", remix, r"(.+)-line", "a line drawing of a {}"),
        "ri_other": ("remix", remix, r"(?!.*-(?:fill|line)$)(.+)", "an icon of a {}"),
        "elusive": ("elusive", "elusiveicons-webfont{}-2.0", r"(.+)", "a solid {}"),
        "codicon": ("codicon", "codicon{}-0.0.36", r"(.+)", "a line drawing of a {}"),
    }
    return {
        name: Style(designer, files.format("") + ".ttf", files.format("-charmap") + ".json", pattern, caption)
        for name, (designer, files, pattern, caption) in table.items()
    }


STYLES = _styles()
IN_DISTRIBUTION = ("mdi_fill", "mdi_outline", "fa6_solid", "fa6_regular", "fa5_solid")
HELD_OUT = tuple(s for s in STYLES if s not in IN_DISTRIBUTION)


@dataclass(frozen=True)
class Glyph:
    style: str
    name: str
    codepoint: int
    concept: str | None

    @property
    def designer(self) -> str:
        return STYLES[self.style].designer

    @property
    def caption(self) -> str:
        """The concept, or else the designer's name for it, in words."""
        return self.concept or self.name.replace("-", " ")


@lru_cache(maxsize=1)
def fonts_dir() -> Path:
    """The folder of qtawesome's fonts, found without importing qtawesome."""
    spec = find_spec("qtawesome")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("IconNet draws icons from qtawesome's fonts, and qtawesome is not installed: "
                         "pip install qtawesome==1.4.2")  # fmt: skip
    return Path(next(iter(spec.submodule_search_locations))) / "fonts"


def _font_file(name: str) -> Path:
    path = fonts_dir() / name
    if not path.is_file():
        raise ValueError(f"icon font {name} is not in {path.parent}: pip install qtawesome==1.4.2")
    return path


@lru_cache(maxsize=1)
def concepts() -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """The classes with their names, and the concept of every name of the table."""
    table = json.loads((ASSETS / "iconnet" / "concepts.json").read_text(encoding="utf-8"))
    classes = {concept: tuple(names) for concept, names in table["classes"].items()}
    return classes, {n: concept for group in table.values() for concept, names in group.items() for n in names}


@lru_cache(maxsize=1)
def glyphs() -> tuple[Glyph, ...]:
    """Every glyph of every style, in the order of the styles and of their charmaps."""
    classes, concept_of = concepts()
    found = []
    for style_name, style in STYLES.items():
        charmap = json.loads(_font_file(style.charmap).read_text(encoding="utf-8"))
        for key, codepoint in charmap.items():
            if match := re.fullmatch(style.pattern, key):
                name = match[1]
                base = re.sub(r"-(?:\d+|simple)$", "", name)  # Remix numbers its variants, Phosphor has "-simple"
                concept = concept_of.get(name)
                if concept is None and style_name in HELD_OUT and concept_of.get(base) in classes:
                    concept = concept_of[base]
                found.append(Glyph(style_name, name, int(codepoint, 16), concept))
    return tuple(found)


@cache
def _font(name: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_font_file(name)), 144)


@cache
def _mask_SS(index: int) -> np.ndarray | None:
    """The glyph, cropped to its ink and centred; None for one without ink (spaces and the like)."""
    glyph = glyphs()[index]
    canvas = Image.new("L", (256, 256), 0)
    ImageDraw.Draw(canvas).text((40, 40), chr(glyph.codepoint), font=_font(STYLES[glyph.style].font), fill=255)
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
    """Those of the glyphs that have ink."""
    return [i for i in indices if _mask_SS(i) is not None]


def masks(indices: Sequence[int]) -> Tensor:
    """masks_GSS, uint8, of glyphs that have ink."""
    found = [_mask_SS(i) for i in indices]
    if missing := [glyphs()[i].name for i, m in zip(indices, found, strict=True) if m is None]:
        raise ValueError(f"glyphs without ink: {', '.join(missing)}")
    return torch.from_numpy(np.stack(found))  # type: ignore[arg-type]


def by_class(styles: Sequence[str]) -> list[list[int]]:
    """For each class, the glyphs that the styles have of it."""
    position = {concept: c for c, concept in enumerate(concepts()[0])}
    found: list[list[int]] = [[] for _ in position]
    for i, glyph in enumerate(glyphs()):
        if glyph.style in styles and glyph.concept in position:
            found[position[glyph.concept]].append(i)
    return found


def _words(name: str) -> tuple[str, ...]:
    return tuple(w[:-1] if len(w) > 3 and w.endswith("s") else w for w in name.split("-"))


def depicts_class(name: str) -> bool:
    """Whether a name of a class occurs in it as words: "book" does in "book-open" and in "bell-books"."""
    words = _words(name)
    ends = range(1, len(words) + 1)
    return any(words[i:j] in _class_words() for j in ends for i in range(j))


@lru_cache(maxsize=1)
def _class_words() -> frozenset[tuple[str, ...]]:
    return frozenset(_words(name) for names in concepts()[0].values() for name in names)


@dataclass(frozen=True)
class Pool:
    """The glyphs of pre-training, and how many were kept from it for which reason."""

    indices: tuple[int, ...]
    held_out: int  # by the held-out designers, and named after a class
    near_duplicates: int  # look like an evaluation glyph of those


def is_held_out(glyph: Glyph) -> bool:
    """Whether a glyph is kept for evaluation: by a held-out designer, and of a class or named after one."""
    return glyph.style in HELD_OUT and (glyph.concept in concepts()[0] or depicts_class(glyph.name))


@lru_cache(maxsize=1)
def pretraining_pool() -> Pool:
    """All glyphs but those held out, by name, and those that look like one of them, whoever drew them.

    The in-distribution designers' own glyphs of the classes stay: a CLIP has seen pictures like ImageNet's too.
    """
    everything = drawable(range(len(glyphs())))
    held_out = [i for i in everything if is_held_out(glyphs()[i])]
    own = {i for group in by_class(IN_DISTRIBUTION) for i in group}
    rest = sorted(set(everything) - set(held_out))
    evaluated = [i for i in held_out if glyphs()[i].concept in concepts()[0]]
    alike = similar(rest, evaluated)
    kept = tuple(i for i, near in zip(rest, alike, strict=True) if i in own or not near)
    return Pool(kept, len(held_out), len(rest) - len(kept))


def similar(indices: Sequence[int], references: Sequence[int]) -> list[bool]:
    """For each glyph, whether its mask is a near-duplicate of a reference's."""
    unit_GD, reference_GD = (_unit(masks(x)) for x in (indices, references))
    best_G = torch.cat([(part @ reference_GD.T).amax(dim=1) for part in unit_GD.split(1024)])
    return (best_G > NEAR_DUPLICATE).tolist()


def _unit(masks_GSS: Tensor) -> Tensor:
    return torch.nn.functional.normalize(masks_GSS.flatten(1).float(), dim=1)
