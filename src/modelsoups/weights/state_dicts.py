"""State-dict algebra: mix and interpolate states, and measure angles between them, one tensor at a
time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

import torch
from torch import Tensor

from modelsoups.checkpoints.formats import load_state
from modelsoups.checkpoints.layouts import check_layout, layout_of
from modelsoups.checkpoints.states import State, averaged, state_sha256

__all__ = [  # with what reads and hashes states, so that callers find the algebra and its files in one module
    "EVERYTHING",
    "ROOT",
    "Coefficients",
    "RunningSum",
    "State",
    "TensorSum",
    "angle",
    "as_counts",
    "check_groups",
    "inner_products",
    "interpolate",
    "is_block",
    "layer_of",
    "load_state",
    "mix",
    "of_group",
    "state_sha256",
]
Coefficients = Mapping[str, Sequence[float]]  # layer group or tensor name -> one coefficient per state
EVERYTHING = "*"  # the layer group of a soup whose coefficients are the same for every tensor
ROOT = "(root)"  # the layer group of tensors that no submodule owns
T = TypeVar("T")

# The repeated block of open_clip and CLIP (resblocks.N), timm (blocks.N, layers.N.blocks.M, stages.N.blocks.M),
# Hugging Face (layer.N, block.N, h.N) and torchvision (features.N, encoder_layer_N, layerN.M).
_BLOCK = re.compile(
    r"(?:.*?\.)??"
    r"(?:(?:stages|layers)\.\d+\.(?:blocks|layers)|(?:resblocks|blocks|block|layers|layer|stages|features|h)|layer\d+)"
    r"\.(?:\d+|encoder_layer_\d+)(?:\.\d+)?(?=\.)"
)


def layer_of(key: str) -> str:
    """The layer group of a tensor: its block ("encoder.transformer.resblocks.3"), else the module
    that owns it.
    """
    block = _BLOCK.match(key)
    return block[0] if block else key.rpartition(".")[0] or ROOT


def is_block(key: str) -> bool:
    """Whether a tensor belongs to one of the model's repeated blocks."""
    return _BLOCK.match(key) is not None


# ---- mixing ----


class TensorSum:
    """Weighted sum of one tensor over states, in float64 and in the order of adding; the dtype is
    kept at the end.

    Whole multiples of float32 and narrower numbers add up exactly in float64 (unless their
    exponents lie 2**20 or more apart), so a mean is rounded once and the mean of equal tensors is
    that tensor, bit for bit. float64 itself has no room to spare: there the differences to the
    first tensor are summed, which are zero for equal tensors.
    """

    def __init__(self) -> None:
        self.first: Tensor | None = None
        self.total: Tensor | None = None
        self.weight = 0.0

    def add(self, tensor: Tensor, weight: float) -> None:
        """Add a tensor of the shape and dtype of the first."""
        if self.first is None:
            self.first = tensor
        assert (tensor.shape, tensor.dtype) == (self.first.shape, self.first.dtype)
        if not averaged(tensor):
            return
        self.weight += weight
        term = self._widen(tensor)  # a new tensor
        if weight != 1:
            term.mul_(weight)
        self.total = term if self.total is None else self.total.add_(term)

    def _widen(self, tensor: Tensor) -> Tensor:
        assert self.first is not None
        if tensor.dtype == torch.float64:
            return self.first - tensor
        return tensor.double()

    def copy(self) -> TensorSum:
        other = TensorSum()
        other.first, other.weight = self.first, self.weight
        other.total = None if self.total is None else self.total.clone()
        return other

    def divided(self, by: float) -> Tensor:
        assert self.first is not None
        if self.total is None:
            return self.first.clone()
        if self.first.dtype == torch.float64:  # minus, not plus: x - 0.0 keeps the sign of a negative zero
            return self.first * (self.weight / by) - self.total / by
        return (self.total / by).to(self.first.dtype)


class RunningSum:
    """Sum of whole states, which greedy keeps instead of reloading the members of the soup.

    Raises ValueError for a state whose layout is not that of the first.
    """

    def __init__(self) -> None:
        self.sums: dict[str, TensorSum] = {}
        self.layout: dict[str, str] = {}
        self.count = 0

    def add(self, state: State, weight: float | Mapping[str, float] = 1.0) -> None:
        """Add a state, times one weight or the weight of each tensor's layer group."""
        self._check(state)
        for key, tensor in state.items():
            of_tensor = weight if isinstance(weight, (int, float)) else of_group(key, weight)
            self.sums.setdefault(key, TensorSum()).add(tensor, of_tensor)
        self.count += 1

    def divided(self, by: float) -> dict[str, Tensor]:
        return {key: total.divided(by) for key, total in self.sums.items()}

    def mean_with(self, state: State) -> dict[str, Tensor]:
        """The mean of the states added so far and this one, which is not added."""
        return self._divided_with(state, 1.0, self.count + 1)

    def without(self, state: State, by: float) -> dict[str, Tensor]:
        """The sum less this state, divided; the sum stays."""
        return self._divided_with(state, -1.0, by)

    def _divided_with(self, state: State, weight: float, by: float) -> dict[str, Tensor]:
        self._check(state)
        mixed = {}
        for key, tensor in state.items():
            total = self.sums[key].copy() if key in self.sums else TensorSum()
            total.add(tensor, weight)
            mixed[key] = total.divided(by)
        return mixed

    def _check(self, state: State) -> None:
        self.layout = self.layout or layout_of(state)
        check_layout(state, self.layout, f"state {self.count}")


def mix(states: Sequence[State], coefficients: Coefficients) -> dict[str, Tensor]:
    """sum_i c_i theta_i (section 2; eq. 2 by layer), c being coefficients[name], [layer_of(name)]
    or ["*"].

    See TensorSum for rounding. Raises ValueError naming the layer group without coefficients, a
    group that no tensor belongs to, or the state (by position) and the tensor that differ from the
    first.
    """
    if not states:
        raise ValueError("no states to mix")
    layout = layout_of(states[0])
    for position, state in enumerate(states):
        check_layout(state, layout, f"state {position}")
    check_groups(states[0], coefficients)
    mixed = {}
    for key in states[0]:
        weights, divisor = as_counts(of_group(key, coefficients))
        if len(weights) != len(states):
            raise ValueError(f"layer group {layer_of(key)}: {len(weights)} coefficients for {len(states)} states")
        total = TensorSum()
        for state, weight in zip(states, weights, strict=True):
            total.add(state[key], weight)
        mixed[key] = total.divided(divisor)
    return mixed


def as_counts(row: Sequence[float]) -> tuple[list[float], int]:
    """Coefficients that are fractions of a small whole (1/6; 3/7) as whole weights and a divisor,
    else unchanged.

    (a + b + c) / 3 is rounded once and in any order; a/3 + b/3 + c/3 is not, and a sixth of all
    float32 means of six lie exactly between two numbers, where that shows.
    """
    fractions = [Fraction(c).limit_denominator(10_000) if math.isfinite(c) else Fraction(0) for c in row]
    divisor = math.lcm(*(f.denominator for f in fractions))
    if divisor > 10_000 or any(float(f) != c for f, c in zip(fractions, row, strict=True)):
        return [float(c) for c in row], 1
    return [float(f * divisor) for f in fractions], divisor


def check_groups(names: Iterable[str], coefficients: Coefficients) -> None:
    """ValueError for a group that no tensor belongs to."""
    names = list(names)
    groups = {layer_of(key) for key in names}
    if unknown := sorted(set(coefficients) - groups - set(names) - {EVERYTHING}):
        raise ValueError(f"layer group {unknown[0]} has no tensors; groups: {', '.join(sorted(groups))}")


def of_group(key: str, by_group: Mapping[str, T]) -> T:
    group = key if key in by_group else layer_of(key)
    if group in by_group:
        return by_group[group]
    if EVERYTHING not in by_group:
        raise ValueError(f"tensor {key}: no coefficients for layer group {group}, nor for {EVERYTHING}")
    return by_group[EVERYTHING]


def interpolate(a: State, b: State, alpha: float) -> dict[str, Tensor]:
    """(1 - alpha) a + alpha b."""
    return mix([a, b], {EVERYTHING: [1 - alpha, alpha]})


# ---- geometry ----


def angle(start: State, one: State, two: State) -> float:
    """Degrees between one - start and two - start (Figure 3). As in J.1 only tensors of two or more
    dimensions count.

    Raises ValueError when a model equals the start, for then there is no direction.
    """
    d11, d12, d22 = inner_products(start, one, two, matrices_only=True)
    if d11 * d22 == 0:
        raise ValueError("no angle: a model has the same weights as the start")
    return math.degrees(math.acos(max(-1.0, min(1.0, d12 / (math.sqrt(d11) * math.sqrt(d22))))))


def inner_products(start: State, one: State, two: State, matrices_only: bool = False) -> tuple[float, float, float]:
    """d1.d1, d1.d2 and d2.d2 of d1 = one - start and d2 = two - start: all that the plane of the
    three depends on.
    """
    d1, d2 = _deltas(one, start, matrices_only), _deltas(two, start, matrices_only)
    pairs = ((d1, d1), (d1, d2), (d2, d2))
    d11, d12, d22 = (math.fsum(float((a[key] * b[key]).sum()) for key in a) for a, b in pairs)
    return d11, d12, d22


def _deltas(a: State, b: State, matrices_only: bool) -> dict[str, Tensor]:
    check_layout(b, layout_of(a), "these models cannot be compared")
    deltas = {}
    for key, tensor in a.items():
        if tensor.is_floating_point() and (tensor.ndim >= 2 or not matrices_only):
            deltas[key] = tensor.double() - b[key].double()
    return deltas
