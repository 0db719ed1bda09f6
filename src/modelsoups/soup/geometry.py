"""Soups chosen without data, from an initialization: WiSE-FT, Model Stock, LiNeS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelsoups.checkpoints.formats import Source
from modelsoups.checkpoints.layouts import check_layouts
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.soup.library import Sources, hashes, open_all
from modelsoups.soup.methods import METHODS
from modelsoups.soup.methods import lines as depth
from modelsoups.soup.methods import model_stock as stock
from modelsoups.weights.state_dicts import EVERYTHING


def wise_ft(init: Source, source: Source, alpha: float) -> Soup:
    """(1 - alpha) theta_0 + alpha theta (Wortsman et al. 2021, arXiv:2109.01903)."""
    checkpoints = open_all([init, source])
    check_layouts(checkpoints)
    start, end = (Ingredient(c.name, c.name, h, None) for c, h in zip(checkpoints, hashes(checkpoints), strict=True))
    return METHODS["wise_ft"](start, end, alpha=alpha)


def model_stock(init: Source, sources: Sources) -> Soup:
    """Model Stock, tensor by tensor (`core.methods.model_stock`): theta_0 + t (mean - theta_0)."""
    checkpoints = open_all([init, *_values(sources)])
    check_layouts(checkpoints)
    count = len(checkpoints) - 1
    ratios = stock.ratios(checkpoints[0], checkpoints[1:])
    rows = {key: [1 - t, *([t / count] * count)] for key, t in ratios.items()}
    rows[EVERYTHING] = [0.0, *([1 / count] * count)]
    trace = tuple({"tensor": key, "t": t} for key, t in ratios.items())
    return Soup("model_stock", tuple(c.name for c in checkpoints), hashes(checkpoints), rows, trace=trace)


def lines(init: Source, sources: Sources, alpha: float, beta: float) -> Soup:
    """theta_0 + lambda_l (mean - theta_0) with lambda_l = alpha + beta (l - 1) / (L - 1) (`core.methods.lines`)."""
    checkpoints = open_all([init, *_values(sources)])
    check_layouts(checkpoints)
    count = len(checkpoints) - 1
    if not count:
        raise ValueError("lines: no checkpoints given beside the initialization")
    scales = depth.scales(checkpoints[0], alpha, beta)
    rows = {group: [1 - s, *([s / count] * count)] for group, s in scales.items()}
    trace = ({"alpha": alpha, "beta": beta},)
    return Soup("lines", tuple(c.name for c in checkpoints), hashes(checkpoints), rows, trace=trace)


def _values(sources: Sources) -> Sequence[Source]:
    return list(sources.values() if isinstance(sources, Mapping) else sources)
