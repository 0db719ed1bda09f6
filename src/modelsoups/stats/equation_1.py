"""Equation (1): the loss of a two-model soup minus that of the ensemble (section 4, appendix K).

    L_soup - L_ens ~ a (1 - a) / 2 * (beta^2 E_x Var_{Y ~ p}[f_Y(theta_1) - f_Y(theta_0)] - d^2/da^2
    L_soup)

where f are logits, p = softmax(beta f) of the soup, and a (alpha) is the position of the soup
(1 - a) theta_0 + a theta_1. Signs as in K.3: convexity favours the soup, variance the ensemble.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn.attention import SDPBackend, sdpa_kernel

Line = Callable[[Tensor], Tensor]  # from alpha (a scalar tensor) to logits_NC of the soup at alpha


@dataclass(frozen=True)
class Approximation:
    """Loss of soup minus loss of ensemble: `truth` is exact, `value` comes from equation (1)."""

    loss_soup: float
    loss_ensemble: float
    curvature: float  # d^2/da^2 L_soup
    variance: float  # beta^2 E_x Var
    alpha: float

    @property
    def truth(self) -> float:
        return self.loss_soup - self.loss_ensemble

    @property
    def value(self) -> float:
        return self.alpha * (1 - self.alpha) / 2 * (self.variance - self.curvature)


def line(model: nn.Module, zero: Mapping[str, Tensor], one: Mapping[str, Tensor], inputs: Tensor) -> Line:
    """Return a function of alpha: the logits with weights (1 - alpha) * zero + alpha * one."""
    moving = {k: t for k, t in zero.items() if t.is_floating_point()}
    fixed = {k: t for k, t in zero.items() if k not in moving}

    def logits(alpha: Tensor) -> Tensor:
        soup = {k: t + alpha.to(t) * (one[k] - t) for k, t in moving.items()}
        return functional_call(model, {**soup, **fixed}, (inputs,))

    return logits


def curvature(logits: Line, labels_N: Tensor, alpha: float, beta: float = 1.0) -> float:
    """Return the second derivative in alpha of the mean cross-entropy of beta * logits(alpha).

    It uses reverse mode twice, because forward over forward (torch.func.jvp of jvp) gives wrong
    values through LayerNorm in torch 2.15 without an error; the test of this function detects that.
    """

    def loss(a: Tensor) -> Tensor:
        return F.cross_entropy(beta * logits(a), labels_N)

    with _differentiable_attention():
        return float(grad(grad(loss))(torch.tensor(alpha, dtype=torch.float64)))


@contextlib.contextmanager
def _differentiable_attention() -> Iterator[None]:
    """Disable fused attention, which has no second derivative, inside the with block."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


STENCIL = (-2, -1, 0, 1, 2)  # positions of the values for `finite_differences`, in steps of h


def finite_differences(values: Sequence[Tensor], h: float) -> tuple[Tensor, Tensor]:
    """Return the first and second derivative at the middle of five values, h apart (fourth order).

    The values should be float64: in float32, logits of about 16 with h = 0.05 cause errors of 0.01.
    """
    if len(values) != len(STENCIL):
        raise ValueError(f"finite differences: got {len(values)} function values; expected {len(STENCIL)}")
    f0, f1, f2, f3, f4 = values
    return (f0 - 8 * f1 + 8 * f3 - f4) / (12 * h), (16 * (f1 + f3) - (f0 + f4) - 30 * f2) / (12 * h**2)


def curvature_of(logits_NC: Tensor, first_NC: Tensor, second_NC: Tensor, labels_N: Tensor, beta: float = 1.0) -> float:
    """Return the second derivative of the mean loss in alpha, from logits f and their f', f''.

    By the chain rule (K.3) it is beta^2 Var_{Y ~ p}[f'_Y] + beta <p - e_y, f''> for p =
    softmax(beta f).
    """
    p_NC = (beta * logits_NC).softmax(dim=1)
    slope_NC = p_NC - F.one_hot(labels_N, p_NC.shape[1])
    per_image_N = beta**2 * variance_under(p_NC, first_NC) + beta * (slope_NC * second_NC).sum(dim=1)
    return float(per_image_N.mean())


def approximation(
    soup_NC: Tensor, ends: tuple[Tensor, Tensor], labels_N: Tensor, alpha: float, curvature: float, beta: float = 1.0
) -> Approximation:
    """Return both sides of equation (1), from the logits of a soup and its two models (`ends`)."""
    zero_NC, one_NC, soup_NC = ends[0].double(), ends[1].double(), soup_NC.double()
    ensemble_NC = (1 - alpha) * zero_NC + alpha * one_NC
    variance_N = variance_under((beta * soup_NC).softmax(dim=1), one_NC - zero_NC)
    return Approximation(
        loss_soup=float(F.cross_entropy(beta * soup_NC, labels_N)),
        loss_ensemble=float(F.cross_entropy(beta * ensemble_NC, labels_N)),
        curvature=curvature,
        variance=beta**2 * float(variance_N.mean()),
        alpha=alpha,
    )


def variance_under(p_NC: Tensor, values_NC: Tensor) -> Tensor:
    """Return for each image the variance of its values over classes Y that are drawn from p."""
    mean_N1 = (p_NC * values_NC).sum(dim=1, keepdim=True)
    return (p_NC * (values_NC - mean_N1).square()).sum(dim=1)
