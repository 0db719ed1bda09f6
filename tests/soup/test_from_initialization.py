"""Model Stock, LiNeS, WiSE-FT and pruned soups against cases worked out by hand."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_choosing import holdout, states

from modelsoups import soup
from modelsoups.soup.fisher import diagonal
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
    with pytest.raises(ValueError, match="0 numbered blocks found"):
        soup.lines(of(a=[1.0]), [of(a=[2.0])], 0, 1)


class Line(torch.nn.Module):
    """logits (w x, 0): p(0) = sigmoid(w x), and d log p(0) / dw = x (1 - p), d log p(1) / dw = -x p."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x_B: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.w * x_B, torch.zeros_like(x_B)], dim=1)


def test_fisher_by_hand() -> None:
    """F = E_x x^2 p (1 - p). For x = 1 and 2, w = 0: (1 + 4) / 2 / 4 = 0.625; w = log 3: (3/16 + 4 * 9/100) / 2."""
    data = soup.Holdout(Line(), [(torch.tensor([1.0, 2.0]), torch.tensor([0, 1]))])
    made = [of(w=[0.0]), of(w=[math.log(3)])]
    fishers = [diagonal(data.model, s, [data.batch(torch.arange(2))[0]], exact=True)["w"].item() for s in made]
    assert fishers == pytest.approx([0.625, (3 / 16 + 4 * 0.9 * 0.1) / 2])
    chosen, merged = soup.fisher(made, data, exact=True, weights=[1, 3])
    expected = 3 * fishers[1] * math.log(3) / (fishers[0] + 3 * fishers[1])
    assert merged["w"].item() == pytest.approx(expected, rel=1e-5)
    assert (chosen.method, chosen.coefficients) == ("fisher", {"*": [0.25, 0.75]})
    drawn = [soup.fisher(made, data, seed=seed)[1]["w"].item() for seed in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert all(0 < w < math.log(3) for w in drawn)


def test_fisher_is_the_mean_where_no_data_tells_and_is_written(tmp_path: Path) -> None:
    data = soup.Holdout(Line(), [(torch.zeros(2), torch.tensor([0, 1]))])
    made = [of(w=[1.0]), of(w=[3.0])]
    chosen, merged = soup.fisher(made, data)
    assert merged["w"].tolist() == [2.0]
    soup.mix(chosen, tmp_path / "soup.safetensors", made, statistics=of(w=[7.0]))
    assert soup.load(tmp_path / "soup.safetensors")["w"].tolist() == [7.0]
    for weights in ([1.0], [1.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="expected 2 numbers above 0"):
            soup.fisher(made, data, weights=weights)


def test_wise_ft_by_hand() -> None:
    init, end = of(w=[1.0]), of(w=[3.0])
    assert soup.mixed(soup.wise_ft(init, end, 0.25), [init, end])["w"].item() == 1.5


def test_pruned_by_hand() -> None:
    """a + b + c = (1, -2, 3)/3: 2 of 3 right. The worst is b (1 right); without it (5, 3, 1)/2: 3, so b leaves."""
    chosen = soup.pruned(states([[4, 1, -1], [-4, -5, 2], [1, 2, 2]]), holdout(3))
    assert chosen.ingredients == ("state 0", "state 2") or chosen.ingredients == ("state 2",)
    assert chosen.trace[0]["correct"] == 2
    assert chosen.trace[1] == {"ingredient": "state 1", "correct": 3, "n": 3, "kept": False, "best": 3}


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.lists(st.integers(-9, 9), min_size=n, max_size=n), min_size=1)))
def test_a_pruned_soup_is_never_below_the_uniform_one(models: list[list[int]]) -> None:
    models = models[:6]
    data = holdout(len(models[0]))
    pruned, uniform = soup.pruned(states(models), data), soup.uniform(states(models))
    every = {f"state {n}": s for n, s in enumerate(states(models))}
    right = [data.count(soup.mixed(c, [every[i] for i in c.ingredients]))[0] for c in (pruned, uniform)]
    assert right[0] >= right[1]
