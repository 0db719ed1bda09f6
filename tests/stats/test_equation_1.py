"""Equation (1): exact where the paper's derivation is, and its second derivative against finite differences."""

import math

import pytest
import torch
from torch import nn

from modelsoups.stats.equation_1 import (
    STENCIL,
    Approximation,
    approximation,
    curvature,
    curvature_of,
    finite_differences,
    line,
)


def both_sides(logits, labels: torch.Tensor, alpha: float, beta: float = 1.0) -> Approximation:
    soup, zero, one = (logits(torch.tensor(a, dtype=torch.float64)).detach() for a in (alpha, 0.0, 1.0))
    return approximation(soup, (zero, one), labels, alpha, curvature(logits, labels, alpha, beta), beta)


def test_exact_for_quadratic_logits_and_a_sure_mistake() -> None:
    """Logits (1000 + 3 a^2, 0), label 1: the loss is 1000 + 3 a^2, of the ensemble 1000 + 3 a. At a = 1/4 the

    difference is 3 (1/16 - 1/4) = -9/16, and equation (1) gives 1/2 * 3/16 * (0 - 6) = -9/16: convex, the soup wins.
    """
    result = both_sides(lambda a: torch.stack([1000 + 3 * a**2, 0 * a])[None], torch.tensor([1]), 0.25)
    assert (result.curvature, result.variance) == (6, 0)
    assert result.truth == pytest.approx(-9 / 16)
    assert result.value == pytest.approx(-9 / 16)


@pytest.mark.parametrize("beta", [1.0, 2.5])
def test_exact_for_linear_logits_where_the_two_terms_cancel(beta: float) -> None:
    """Logits (a, 0): soup and ensemble are one. Curvature is p (1 - p) beta^2, and so is the variance."""

    result = both_sides(lambda a: torch.stack([a, 0 * a])[None], torch.tensor([0]), 0.4, beta)
    p = 1 / (1 + math.exp(-0.4 * beta))
    assert result.curvature == pytest.approx(beta**2 * p * (1 - p))
    assert result.variance == pytest.approx(result.curvature)
    assert result.truth == pytest.approx(0, abs=1e-12)
    assert result.value == pytest.approx(0, abs=1e-12)


def test_the_ends_of_the_line_differ_in_nothing() -> None:
    result = both_sides(lambda a: torch.stack([a.exp(), a])[None], torch.tensor([0]), 1.0)
    assert result.value == 0
    assert result.truth == pytest.approx(0)


@pytest.mark.parametrize("beta", [1.0, 0.6])
def test_the_exact_second_derivative_is_that_of_finite_differences(beta: float) -> None:
    """A network with attention, normalisation and GELU, as the encoders have, in float64."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(24, 5)).double().eval()
    zero = {k: t.detach().clone() for k, t in model.state_dict().items()}
    one = {k: t + 0.3 * torch.randn_like(t) for k, t in zero.items()}
    inputs, labels = torch.randn(20, 3, 8, dtype=torch.float64), torch.randint(5, (20,))
    logits = line(model, zero, one, inputs)

    def at(alpha: float) -> torch.Tensor:
        with torch.no_grad():
            return logits(torch.tensor(alpha, dtype=torch.float64))

    for alpha in (0.0, 0.3, 1.0):
        first, second = finite_differences([at(alpha + k * 0.01) for k in STENCIL], 0.01)
        found = curvature_of(at(alpha), first, second, labels, beta)
        assert found == pytest.approx(curvature(logits, labels, alpha, beta), rel=1e-5)


def test_finite_differences_of_a_cubic_are_exact() -> None:
    """a^3 at a = 2: 3 a^2 = 12 and 6 a = 12."""
    values = [torch.tensor([(2 + k * 0.5) ** 3], dtype=torch.float64) for k in STENCIL]
    first, second = finite_differences(values, 0.5)
    assert (float(first), float(second)) == (pytest.approx(12), pytest.approx(12))
    with pytest.raises(ValueError, match="got 3 function values; expected 5"):
        finite_differences(values[:3], 0.5)


def test_the_approximation_is_close_for_models_that_are_close() -> None:
    """Both sides shrink with the square of the distance, their difference faster."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 4)).double()
    zero = {k: t.detach().clone() for k, t in model.state_dict().items()}
    step = {k: torch.randn_like(t) for k, t in zero.items()}
    inputs, labels = torch.randn(200, 6, dtype=torch.float64), torch.randint(4, (200,))
    errors = []
    for size in (0.05, 0.01, 0.005):
        logits = line(model, zero, {k: t + size * step[k] for k, t in zero.items()}, inputs)
        result = both_sides(logits, labels, 0.5)
        errors.append(abs(result.value - result.truth) / abs(result.truth))
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.05


def test_buffers_stay_as_they_are() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)).eval()
    zero = {k: t.detach().clone() for k, t in model.state_dict().items()}
    one = {k: t + 1 for k, t in zero.items()}
    inputs = torch.randn(4, 3)
    out = line(model, zero, one, inputs)(torch.tensor(1.0))
    model.load_state_dict(one)
    torch.testing.assert_close(out, model(inputs))
