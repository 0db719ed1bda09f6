"""Model Stock, LiNeS, WiSE-FT and pruned soups against cases worked out by hand."""

import math

import pytest
import torch

from modelsoups import soup
from modelsoups.soup.from_initialization import depth_scales, stock_ratio


def of(**tensors: list[float]) -> dict[str, torch.Tensor]:
    return {k.replace("__", "."): torch.tensor(v) for k, v in tensors.items()}


def test_model_stock_by_hand() -> None:
    """Updates (1, 0) and (1, 1): cos = 1/sqrt 2, t = 2 cos / (1 + cos) = 0.828427; the mean update is (1, 1/2).

    Orthogonal updates stay at the initialization, equal ones give the mean.
    """
    init = of(a=[1.0, 1.0], b=[0.0, 0.0], c=[3.0, 0.0], d=[5.0])
    one = of(a=[2.0, 1.0], b=[1.0, 0.0], c=[4.0, 1.0], d=[5.0])
    two = of(a=[2.0, 2.0], b=[0.0, 1.0], c=[4.0, 1.0], d=[5.0])
    chosen = soup.model_stock(init, [one, two])
    mixed = soup.mixed(chosen, [init, one, two])
    t = 2 * math.sqrt(0.5) / (1 + math.sqrt(0.5))
    assert mixed["a"].tolist() == pytest.approx([1 + t, 1 + t / 2])
    assert mixed["b"].tolist() == [0.0, 0.0]
    assert mixed["c"].tolist() == pytest.approx([4.0, 1.0])
    assert mixed["d"].tolist() == [5.0]
    with pytest.raises(ValueError, match="an angle needs at least two"):
        soup.model_stock(init, [one])


def test_model_stocks_ratio_for_more_models() -> None:
    """K = 3, cos = 1/2: 1.5 / 2 = 3/4. Any K: 0 at right angles, 1 for equal models."""
    assert stock_ratio(0.5, 3) == 0.75
    assert [stock_ratio(0.0, 5), stock_ratio(1.0, 5), stock_ratio(-0.2, 5)] == [0.0, 1.0, 0.0]


def test_lines_by_hand() -> None:
    """Three blocks, alpha 0.2, beta 0.6: 0.2, 0.5, 0.8; the head as the last block, the rest: alpha."""
    names = ["conv1.w", "blocks.0.w", "blocks.1.w", "blocks.2.w", "norm.w", "head.w"]
    assert depth_scales(names, 0.2, 0.6) == pytest.approx(
        {"conv1": 0.2, "blocks.0": 0.2, "blocks.1": 0.5, "blocks.2": 0.8, "norm": 0.2, "head": 0.8, "*": 0.2}
    )
    init, end = ({n: torch.full((2,), v) for n in names} for v in (1.0, 3.0))
    mixed = soup.mixed(soup.lines(init, [end], 0.2, 0.6), [init, end])
    assert [mixed[n][0].item() for n in names] == pytest.approx([1.4, 1.4, 2.0, 2.6, 1.4, 2.6])
    with pytest.raises(ValueError, match="0 numbered layers; two are needed"):
        soup.lines(of(a=[1.0]), [of(a=[2.0])], 0, 1)


def test_wise_ft_by_hand() -> None:
    init, end = of(w=[1.0]), of(w=[3.0])
    assert soup.mixed(soup.wise_ft(init, end, 0.25), [init, end])["w"].item() == 1.5
