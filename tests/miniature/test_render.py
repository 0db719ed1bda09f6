"""The renderer: the same generator gives the same bytes, and looks can be mixed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from modelsoups.miniature import icons, render
from modelsoups.miniature.render import LOOKS


def test_same_generator_same_image_and_bytes_are_uint8():
    masks_BSS = icons.masks(icons.by_class(("fa6_solid",))[0][:1] * 3)
    look = replace(LOOKS["r"], clutter=1.0)
    first, second = (render.render(masks_BSS, look, torch.Generator().manual_seed(7), masks_BSS) for _ in range(2))
    assert first.dtype == torch.uint8
    assert first.shape == (3, 3, 32, 32)
    assert torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


def test_render_refuses_clutter_without_masks():
    with pytest.raises(ValueError, match="needs masks"):
        render.render(torch.zeros(1, 48, 48, dtype=torch.uint8), render.Look(clutter=0.5), torch.Generator())


def test_looks_interpolate():
    easy, hard = LOOKS["easy"], LOOKS["hard"]
    half = easy.towards(hard, 0.5)
    assert half.turn == pytest.approx((easy.turn + hard.turn) / 2)
    assert half.noise[1] == pytest.approx((easy.noise[1] + hard.noise[1]) / 2)
    assert easy.towards(hard, 1.0) == hard
