"""Fisher-weighted averages, worked out by hand."""

import math
from pathlib import Path

import pytest
import torch
from test_from_initialization import of

from modelsoups import soup
from modelsoups.soup.fisher import diagonal


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
