"""BatchNorm before and after its statistics are estimated again."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from modelsoups import soup
from modelsoups.soup.batchnorm import reestimate


class Net(nn.Sequential):
    """Eight convolutions, each with a BatchNorm: the mismatch of statistics grows with depth."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for depth in range(8):
            layers += [nn.Conv2d(12 if depth else 1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))


def images(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Stripes of four directions under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels_N = torch.randint(4, (count,), generator=generator)
    grid = torch.arange(12.0)
    x, y = grid[None, :], grid[:, None]
    stripes = torch.stack([torch.sin(v) for v in (x + 0 * y, y + 0 * x, (x + y) / 1.4, (x - y) / 1.4)])
    return stripes[labels_N][:, None] + 0.7 * torch.randn(count, 1, 12, 12, generator=generator), labels_N


def fine_tuned(start: dict[str, torch.Tensor] | None, seed: int, lr: float, steps: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    model = Net()
    if start is not None:
        model.load_state_dict(start)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    for step in range(steps):
        x_BCHW, labels_B = images(64, 1000 * seed + step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x_BCHW), labels_B).backward()
        optimizer.step()
    return {k: v.clone() for k, v in model.eval().state_dict().items()}


def test_a_soup_with_batchnorm_falls_and_recovers_with_new_statistics(tmp_path: Path) -> None:
    start = fine_tuned(None, 0, 0.01, 20)
    states = [fine_tuned(start, seed, 0.05, 20) for seed in range(1, 7)]
    data = soup.Holdout(Net(), [images(400, 77)])
    chosen = soup.uniform(states)
    fresh = soup.reestimate(soup.mixed(chosen, states), data, [images(64, 500 + n) for n in range(8)])
    assert fresh.before < 200  # of 400, with four classes
    assert fresh.after > fresh.before + 100
    notes = soup.mix(chosen, tmp_path / "soup.safetensors", states, statistics=fresh.statistics)
    assert not any("BatchNorm" in n for n in notes)
    assert data.count(load_file(tmp_path / "soup.safetensors"))[0] == fresh.after
    assert any("BatchNorm" in n for n in soup.mix(chosen, tmp_path / "stale.safetensors", states))


def test_reestimation_by_hand_and_what_it_refuses() -> None:
    """One channel, images of 1 and of 3: mean 2; variance of each batch of equal values is 0."""
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten())
    data = soup.Holdout(model, [(torch.ones(2, 1, 2, 2), torch.zeros(2).long())])
    fresh = reestimate(model.state_dict(), data, [(torch.full((2, 1, 2, 2), v), None) for v in (1.0, 3.0)])
    assert fresh.statistics["0.running_mean"].tolist() == [2.0]
    assert fresh.statistics["0.running_var"].tolist() == [0.0]
    assert fresh.statistics["0.num_batches_tracked"].item() == 2
    with pytest.raises(ValueError, match="loader of training images is empty"):
        reestimate(model.state_dict(), data, [])
    plain = soup.Holdout(nn.Sequential(nn.Linear(2, 2)), [(torch.ones(1, 2), torch.zeros(1).long())])
    with pytest.raises(ValueError, match="has no BatchNorm"):
        reestimate(plain.model.state_dict(), plain, [])
