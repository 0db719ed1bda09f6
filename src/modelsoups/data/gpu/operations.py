"""PIL's image operations for uint8 batches (B, C, H, W) on any device, with one argument per image.

Results equal PIL's, except that the pixel values of resizing and affine maps may differ by one
(tests/data/gpu/test_augment.py). None of the functions makes the CPU wait for a GPU.

Legend (last letters of tensor names): L pixels along one axis.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

CHUNK = 64  # images resized at a time: each needs a float copy of its whole canvas
EPSILON = 2e-3  # levels added before truncation: a float sum may be just below PIL's integer


def resized_crop(canvas_BCHW: Tensor, boxes_B4: Tensor, bicubic_B: Tensor, side: int) -> Tensor:
    """Crop each image to its box (top, left, height, width); resize it to (side, side) as PIL does.

    Like PIL, it resizes and rounds the width before the height. Pillow 13 resizes some tall crops
    in the other order: a fifth of their pixel values then differ by one.
    """
    parts = (t.split(CHUNK) for t in (canvas_BCHW, boxes_B4, bicubic_B))
    crops = []
    for pixels_BCHW, box_B4, cubic_B in zip(*parts, strict=True):
        top_B, left_B, height_B, width_B = box_B4.unbind(1)
        rows_BSH = _weights(top_B, height_B, cubic_B, pixels_BCHW.shape[2], side)
        columns_BSW = _weights(left_B, width_B, cubic_B, pixels_BCHW.shape[3], side)
        narrow_BCHS = _rounded(pixels_BCHW.float() @ columns_BSW.mT.unsqueeze(1))
        crops.append(_rounded(rows_BSH.unsqueeze(1) @ narrow_BCHS).to(torch.uint8))
    return torch.cat(crops)


def _weights(start_B: Tensor, length_B: Tensor, cubic_B: Tensor, size: int, side: int) -> Tensor:
    """Return matrices (B, side, size) that resize one axis by PIL's bicubic or bilinear filter.

    Both filters are antialiased. Pixels outside the crop [start, start + length) have weight zero.
    """
    start_B11, length_B11 = (t.double().view(-1, 1, 1) for t in (start_B, length_B))
    scale_B11 = length_B11 / side
    place_L = torch.arange(size, device=start_B.device, dtype=torch.float64) + 0.5
    result_S = torch.arange(side, device=start_B.device, dtype=torch.float64) + 0.5
    centre_BS1 = start_B11 + result_S.view(1, -1, 1) * scale_B11
    x = ((place_L - centre_BS1) / scale_B11.clamp(min=1.0)).abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    cubic = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    weights_BSL = torch.where(cubic_B.view(-1, 1, 1), cubic, (1 - x).clamp(min=0.0))
    inside = (place_L > start_B11) & (place_L < start_B11 + length_B11)
    weights_BSL = torch.where(inside, weights_BSL, 0.0)
    return (weights_BSL / weights_BSL.sum(-1, keepdim=True)).float()


def _rounded(values: Tensor) -> Tensor:
    return (values + 0.5).floor_().clamp_(0, 255)


def _levels(pixels_BCHW: Tensor) -> Tensor:  # levels_BC256, int64
    return torch.arange(256, device=pixels_BCHW.device).expand(*pixels_BCHW.shape[:2], 256)


def _looked_up(pixels_BCHW: Tensor, table_BC256: Tensor) -> Tensor:
    index_BCN = pixels_BCHW.flatten(2).long()
    return table_BC256.to(torch.uint8).gather(2, index_BCN).view_as(pixels_BCHW)


def auto_contrast(pixels_BCHW: Tensor, _: Tensor) -> Tensor:
    low_BC1 = pixels_BCHW.flatten(2).amin(2, keepdim=True).double()
    high_BC1 = pixels_BCHW.flatten(2).amax(2, keepdim=True).double()
    levels = _levels(pixels_BCHW)
    scale_BC1 = 255.0 / (high_BC1 - low_BC1).clamp(min=1.0)
    stretched = (levels * scale_BC1 - low_BC1 * scale_BC1).clamp(0, 255).long()
    return _looked_up(pixels_BCHW, torch.where(high_BC1 > low_BC1, stretched, levels))


def equalize(pixels_BCHW: Tensor, _: Tensor) -> Tensor:
    index_BCN, levels = pixels_BCHW.flatten(2).long(), _levels(pixels_BCHW)
    counts_BC256 = torch.zeros_like(levels)  # torch.bincount would wait for the GPU
    counts_BC256.scatter_add_(2, index_BCN, torch.ones_like(index_BCN))
    last_BC1 = torch.where(counts_BC256 > 0, levels, -1).amax(2, keepdim=True)
    step_BC1 = (counts_BC256.sum(2, keepdim=True) - counts_BC256.gather(2, last_BC1)) // 255
    below = counts_BC256.cumsum(2) - counts_BC256
    spread = ((step_BC1 // 2 + below) // step_BC1.clamp(min=1)).clamp(max=255)
    return _looked_up(pixels_BCHW, torch.where(step_BC1 > 0, spread, levels))


def posterize(pixels_BCHW: Tensor, bits_B: Tensor) -> Tensor:
    """Keep the highest `bits_B` bits of each 8-bit pixel value and zero the rest."""
    dropped_B111 = (8 - bits_B.clamp(0, 8)).to(torch.int32).view(-1, 1, 1, 1)
    return ((pixels_BCHW.int() >> dropped_B111) << dropped_B111).to(torch.uint8)


def solarize(pixels_BCHW: Tensor, threshold_B: Tensor) -> Tensor:
    return torch.where(pixels_BCHW < threshold_B.view(-1, 1, 1, 1), pixels_BCHW, 255 - pixels_BCHW)


def solarize_add(pixels_BCHW: Tensor, add_B: Tensor) -> Tensor:
    brighter = (pixels_BCHW.int() + add_B.int().view(-1, 1, 1, 1)).clamp(max=255).to(torch.uint8)
    return torch.where(pixels_BCHW < 128, brighter, pixels_BCHW)


def _blended(dull_BCHW: Tensor, pixels_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    """Return dull + factor * (pixels - dull), clipped to 0 to 255: a factor of 0 gives `dull`."""
    dull, factor_B111 = dull_BCHW.float(), factor_B.float().view(-1, 1, 1, 1)
    return (dull + factor_B111 * (pixels_BCHW.float() - dull)).clamp_(0, 255).to(torch.uint8)


def _gray(pixels_BCHW: Tensor) -> Tensor:
    """Return grayscale images, int (B, 1, H, W), by PIL's integer luma formula (ITU-R 601-2)."""
    red, green, blue = pixels_BCHW.int().split(1, dim=1)
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


def color(pixels_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    return _blended(_gray(pixels_BCHW).expand_as(pixels_BCHW), pixels_BCHW, factor_B)


def contrast(pixels_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    gray_B1HW = _gray(pixels_BCHW)
    mean_B111 = (gray_B1HW.double().mean((1, 2, 3), keepdim=True) + 0.5).floor()
    return _blended(mean_B111.expand(pixels_BCHW.shape), pixels_BCHW, factor_B)


def brightness(pixels_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    return _blended(torch.zeros_like(pixels_BCHW), pixels_BCHW, factor_B)


def sharpness(pixels_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    """Blend each image with a copy smoothed by PIL's SMOOTH filter; factors above 1 sharpen."""
    wide = pixels_BCHW.int()
    height, width = wide.shape[-2:]
    total = 4 * wide[..., 1:-1, 1:-1]
    for y in range(3):
        for x in range(3):
            total = total + wide[..., y : height - 2 + y, x : width - 2 + x]
    smooth_BCHW = pixels_BCHW.clone()
    smooth_BCHW[..., 1:-1, 1:-1] = ((2 * total + 13) // 26).to(torch.uint8)
    return _blended(smooth_BCHW, pixels_BCHW, factor_B)


TONES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # timm's names and arguments
    "AutoContrast": auto_contrast,
    "Equalize": equalize,
    "Invert": lambda pixels_BCHW, _: 255 - pixels_BCHW,
    "Posterize": posterize,
    "Solarize": solarize,
    "SolarizeAdd": solarize_add,
    "Color": color,
    "Contrast": contrast,
    "Brightness": brightness,
    "Sharpness": sharpness,
}


def affine_matrix(name: str, argument: float, side: int) -> tuple[float, ...]:
    """Return an operation as (a, ..., f): output (x, y) is input (a x + b y + c, d x + e y + f)."""
    if name == "Rotate":
        turn, half = torch.deg2rad(torch.tensor(-argument, dtype=torch.float64)), side / 2
        cos, sin = float(turn.cos()), float(turn.sin())
        return (cos, sin, half - half * cos - half * sin, -sin, cos, half + half * sin - half * cos)
    moved = argument * side
    return {
        "ShearX": (1.0, argument, 0.0, 0.0, 1.0, 0.0),
        "ShearY": (1.0, 0.0, 0.0, argument, 1.0, 0.0),
        "TranslateXRel": (1.0, 0.0, moved, 0.0, 1.0, 0.0),
        "TranslateYRel": (1.0, 0.0, 0.0, 0.0, 1.0, moved),
    }[name]


AFFINE = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")


def affine(pixels_BCHW: Tensor, matrices_B6: Tensor, fill_C: Tensor, bicubic: bool) -> Tensor:
    """Transform each image by its affine matrix as PIL does; uncovered pixels get colour fill_C."""
    height, width = pixels_BCHW.shape[-2:]
    a, b, c, d, e, f = (column.view(-1, 1, 1) for column in matrices_B6.double().unbind(1))
    places = partial(torch.arange, device=pixels_BCHW.device, dtype=torch.float64)
    y_HW, x_HW = torch.meshgrid(places(height) + 0.5, places(width) + 0.5, indexing="ij")
    x_BHW, y_BHW = a * x_HW + b * y_HW + c, d * x_HW + e * y_HW + f
    covered_BHW = (x_BHW >= 0) & (x_BHW < width) & (y_BHW >= 0) & (y_BHW < height)
    columns, rows = _taps(x_BHW - 0.5, width, bicubic), _taps(y_BHW - 0.5, height, bicubic)
    flat_BCN = pixels_BCHW.flatten(2)
    total_BCHW = torch.zeros(pixels_BCHW.shape, device=pixels_BCHW.device)
    for row_BHW, row_weight_BHW in rows:
        for column_BHW, weight_BHW in columns:
            index_BN = (row_BHW * width + column_BHW).flatten(1)
            index_BCN = index_BN.unsqueeze(1).expand_as(flat_BCN)
            taken_BCHW = flat_BCN.gather(2, index_BCN).view_as(pixels_BCHW)
            total_BCHW += (row_weight_BHW * weight_BHW).unsqueeze(1) * taken_BCHW
    moved_BCHW = (total_BCHW + EPSILON).clamp_(0, 255).to(torch.uint8)
    return torch.where(covered_BHW.unsqueeze(1), moved_BCHW, fill_C.view(1, -1, 1, 1))


def _taps(place_BHW: Tensor, size: int, bicubic: bool) -> list[tuple[Tensor, Tensor]]:
    """Return (index, weight) of a position's 2 (bilinear) or 4 (bicubic) neighbours on one axis."""
    first_BHW = place_BHW.floor()
    t = (place_BHW - first_BHW).float()
    weights = [1 - t, t]
    if bicubic:
        outer = [((2 - t) * t - 1) * t, (t - 1) * t * t]
        weights = [outer[0], (t - 2) * t * t + 1, ((1 - t) * t + 1) * t, outer[1]]
    numbered = enumerate(weights, -1 if bicubic else 0)
    return [((first_BHW.long() + i).clamp(0, size - 1), weight) for i, weight in numbered]
