"""The rendering of batches of glyph masks as 32x32 colour images.

All random numbers come from the given generator: the same generator state gives the same bytes.
"""

import math
from dataclasses import astuple, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from modelsoups.disk import storage
from modelsoups.disk.paths import ASSETS

SIDE = 32
LUMA_C = torch.tensor([0.30, 0.59, 0.11])
Range = tuple[float, float]


@dataclass(frozen=True)
class Look:
    """A random style of rendering, given by ranges, probabilities and largest values of effects."""

    scale: Range = (0.45, 0.92)  # glyph size, as a fraction of the image's side
    turn: float = 12.0  # largest rotation in degrees, either way
    perspective: float = 0.0  # largest tilt
    shift: float = 0.16  # largest shift, as a fraction of half the side, either way
    rich: float = 0.0  # fraction of backgrounds with strong gradients and blobs of colour
    white: float = 0.0  # fraction of white backgrounds, among those not rich
    dark: float = 1.0  # fraction of glyphs darker than a light background
    inverted: float = 0.0  # fraction of light glyphs on a dark background
    contrast: Range = (0.15, 0.65)  # difference of glyph and background, in luminance
    stripes: float = 0.0  # fraction of striped glyphs
    clutter: float = 0.0  # probability of each of two pale glyphs behind
    occluded: float = 0.4  # fraction with a rectangle in front of the glyph
    blur: float = 0.4  # fraction that is blurred
    noise: Range = (0.04, 0.24)  # standard deviation

    def towards(self, other: "Look", t: float) -> "Look":
        """Return the linear interpolation between this look (t = 0) and `other` (t = 1)."""

        def between(a: Any, b: Any) -> Any:
            return tuple(map(between, a, b)) if isinstance(a, tuple) else a + (b - a) * t

        return Look(*map(between, astuple(self), astuple(other)))

    @staticmethod
    def of(row: dict[str, Any]) -> "Look":
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
        return Look(**values)


_TABLE = storage.read_json(ASSETS / "iconnet" / "looks.json")
LOOKS = dict(zip(_TABLE, map(Look.of, _TABLE.values()), strict=True))  # of the sets and of pre-training


def render(masks_BSS: Tensor, look: Look, generator: Generator, clutter_KSS: Tensor | None = None) -> Tensor:
    """Render masks as uint8 images, (B, 3, 32, 32), before random masks of clutter_KSS."""
    if look.clutter > 0 and (clutter_KSS is None or len(clutter_KSS) == 0):
        raise ValueError(f"look.clutter={look.clutter} needs masks of clutter: give clutter_KSS")
    draw = _Draw(len(masks_BSS), generator)
    turn_B = draw.either_way(math.radians(look.turn))
    scale_B, tilt_B2 = draw.between(look.scale), draw.either_way(look.perspective, 2)
    shape_BHW = _warp(masks_BSS, scale_B, turn_B, tilt_B2, draw.either_way(look.shift, 2))
    ground_BCHW = _background(look, draw)
    if clutter_KSS is not None and look.clutter > 0:
        for _ in range(2):
            _add_clutter(ground_BCHW, clutter_KSS, look, draw)
    ground_BCHW, ink_BCHW = _colour(ground_BCHW, look, draw)
    images_BCHW = ground_BCHW + (ink_BCHW - ground_BCHW) * shape_BHW[:, None]
    images_BCHW = _blur(_occlude(images_BCHW, look, draw), look, draw)
    images_BCHW = images_BCHW + draw.normal(3, SIDE, SIDE) * _pixels(draw.between(look.noise))
    return (images_BCHW.clamp(0, 1) * 255).round().to(torch.uint8)


@dataclass(frozen=True)
class _Draw:
    batch: int
    generator: Generator

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(self.batch, *shape, generator=self.generator)

    def either_way(self, largest: float, *shape: int) -> Tensor:
        return (self.uniform(*shape) * 2 - 1) * largest

    def between(self, range_: Range) -> Tensor:
        return range_[0] + (range_[1] - range_[0]) * self.uniform()

    def share(self, probability: float) -> Tensor:
        return self.uniform() < probability

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.batch, *shape, generator=self.generator)


def _pixels(x_B: Tensor) -> Tensor:  # x_B111
    return x_B.view(-1, 1, 1, 1)


def _warp(masks_BSS: Tensor, scale_B: Tensor, turn_B: Tensor, tilt_B2: Tensor, shift_B2: Tensor) -> Tensor:
    """Return the masks rotated, scaled, tilted in perspective and shifted: (B, 32, 32), 0 to 1."""
    line = torch.linspace(-1 + 1 / SIDE, 1 - 1 / SIDE, SIDE)
    x_BHW = line[None, None, :] - shift_B2[:, 0, None, None]
    y_BHW = line[None, :, None] - shift_B2[:, 1, None, None]
    cos_B11, sin_B11 = ((f(turn_B) / scale_B)[:, None, None] for f in (torch.cos, torch.sin))
    u_BHW, v_BHW = cos_B11 * x_BHW + sin_B11 * y_BHW, cos_B11 * y_BHW - sin_B11 * x_BHW
    depth_BHW = (1 + tilt_B2[:, 0, None, None] * u_BHW + tilt_B2[:, 1, None, None] * v_BHW).clamp_min(0.3)
    grid_BHW2 = torch.stack([u_BHW / depth_BHW, v_BHW / depth_BHW], dim=-1)
    return F.grid_sample(masks_BSS[:, None].float() / 255, grid_BHW2, align_corners=False)[:, 0]


def _hue(hue_B: Tensor, saturation_B: Tensor, value_B: Tensor) -> Tensor:
    """Convert hue, saturation and value, each from 0 to 1, to RGB colours, (B, 3)."""
    k_BC = torch.stack([(hue_B * 6 + k) % 6 for k in (5.0, 3.0, 1.0)], dim=-1)
    return value_B[:, None] * (1 - saturation_B[:, None] * torch.minimum(k_BC, 4 - k_BC).clamp(0, 1))


def _background(look: Look, draw: _Draw) -> Tensor:
    """Return backgrounds, (B, 3, 32, 32): white, faint gradients, or strong ones with blobs."""
    first_BC = _hue(draw.uniform(), draw.uniform() * 0.5, 0.6 + 0.4 * draw.uniform())
    second_BC = _hue(draw.uniform(), draw.uniform() * 0.5, 0.5 + 0.5 * draw.uniform())
    rich_B = draw.share(look.rich).float()
    white_B = draw.share(look.white).float() * (1 - rich_B)
    strength_B = draw.uniform() * (rich_B + 0.25 * (1 - rich_B))
    ramp_B1HW = _ramp(draw)[:, None] * _pixels(strength_B)
    first_BC11, second_BC11 = first_BC[:, :, None, None], second_BC[:, :, None, None]
    ground_BCHW = first_BC11 * (1 - ramp_B1HW) + second_BC11 * ramp_B1HW
    blobs_BCHW = F.interpolate(draw.normal(3, 5, 5), (SIDE, SIDE), mode="bilinear", align_corners=False)
    ground_BCHW = ground_BCHW + blobs_BCHW * _pixels(0.18 * rich_B * draw.uniform())
    paper_B = white_B * (0.94 + 0.06 * draw.uniform())
    return ground_BCHW * _pixels(1 - white_B) + _pixels(paper_B)


def _ramp(draw: _Draw) -> Tensor:
    """Return brightness ramps, (B, 32, 32), from 0 to 1 in random directions."""
    line, angle_B11 = torch.linspace(-0.5, 0.5, SIDE), draw.uniform(1, 1) * 2 * math.pi
    across_BHW, down_BHW = torch.cos(angle_B11) * line, torch.sin(angle_B11) * line[:, None]
    return (across_BHW + down_BHW + 0.5).clamp(0, 1)


def _add_clutter(ground_BCHW: Tensor, clutter_KSS: Tensor, look: Look, draw: _Draw) -> None:
    chosen = draw.share(look.clutter).nonzero()[:, 0]
    if len(chosen) == 0:
        return
    some = _Draw(len(chosen), draw.generator)
    which = torch.randint(len(clutter_KSS), (len(chosen),), generator=draw.generator)
    scale_B, turn_B = 0.4 + 0.5 * some.uniform(), some.either_way(math.pi)
    no_tilt_B2, shift_B2 = torch.zeros(len(chosen), 2), some.either_way(0.8, 2)
    shape_BHW = _warp(clutter_KSS[which], scale_B, turn_B, no_tilt_B2, shift_B2)
    ground_BCHW[chosen] += some.either_way(0.22, 3)[:, :, None, None] * shape_BHW[:, None]


def _colour(ground_BCHW: Tensor, look: Look, draw: _Draw) -> tuple[Tensor, Tensor]:
    """Return backgrounds (some darkened) and glyph colours that contrast with them in luminance."""
    contrast_B = draw.between(look.contrast)
    light_B = ground_BCHW.mean(dim=(2, 3)) @ LUMA_C
    darker_B = light_B >= 0
    if look.dark < 1:
        darker_B = draw.uniform() < torch.where(light_B > 0.5, look.dark, 1 - look.dark)
    inverted_B = draw.share(look.inverted)
    ground_BCHW = torch.where(_pixels(inverted_B), ground_BCHW * 0.35, ground_BCHW)
    light_B = torch.where(inverted_B, light_B * 0.35, light_B)
    target_B = torch.where(darker_B & ~inverted_B, light_B - contrast_B, light_B + contrast_B)
    target_B = torch.where(target_B > 1, light_B - contrast_B, target_B).clamp(0, 1)
    hue_BC = _hue(draw.uniform(), draw.uniform() * 0.9, torch.ones(draw.batch))
    ink_BC = (hue_BC / (hue_BC @ LUMA_C)[:, None] * target_B[:, None]).clamp(0, 1)
    return ground_BCHW, _stripe(ink_BC, ground_BCHW, look, draw)


def _stripe(ink_BC: Tensor, ground_BCHW: Tensor, look: Look, draw: _Draw) -> Tensor:
    """Return the glyph colour of each pixel: uniform, or with stripes closer to the background."""
    ink_BCHW = ink_BC[:, :, None, None].expand(-1, -1, SIDE, SIDE)
    if look.stripes == 0:
        return ink_BCHW
    has_B, frequency_B = draw.share(look.stripes), 2 + 5 * draw.uniform()
    phase_B = draw.uniform() * 2 * math.pi
    ramp_BHW = _ramp(draw) * frequency_B[:, None, None] * 2 * math.pi
    stripes_BHW = (torch.sin(ramp_BHW + phase_B[:, None, None]) > 0.2).float() * has_B[:, None, None]
    other_BC = 0.5 * ink_BC + 0.5 * ground_BCHW.mean(dim=(2, 3))
    return ink_BCHW + (other_BC[:, :, None, None] - ink_BCHW) * 0.7 * stripes_BHW[:, None]


def _occlude(images_BCHW: Tensor, look: Look, draw: _Draw) -> Tensor:
    """Cover part of some images with a random rectangle (sides: 15 to 50% of the image's)."""
    line = torch.linspace(0, 1, SIDE)
    size_B2, centre_B2, colour_BC = 0.15 + 0.35 * draw.uniform(2), draw.uniform(2), draw.uniform(3)
    wide_BW = (line - centre_B2[:, :1]).abs() < size_B2[:, :1] / 2
    high_BH = (line - centre_B2[:, 1:]).abs() < size_B2[:, 1:] / 2
    inside_BHW = high_BH[:, :, None] & wide_BW[:, None, :] & draw.share(look.occluded)[:, None, None]
    return torch.where(inside_BHW[:, None], colour_BC[:, :, None, None], images_BCHW)


def _blur(images_BCHW: Tensor, look: Look, draw: _Draw) -> Tensor:
    amount_B = draw.share(look.blur).float() * 0.8
    smooth_BCHW = F.avg_pool2d(F.pad(images_BCHW, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return images_BCHW + (smooth_BCHW - images_BCHW) * _pixels(amount_B)
