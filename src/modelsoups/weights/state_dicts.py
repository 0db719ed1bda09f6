"""State-dict algebra: mixing, interpolation and angles, one tensor at a time."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

import torch
from torch import Tensor

from modelsoups.checkpoints.formats import load_state as load_state  # for callers of this module
from modelsoups.checkpoints.layouts import check_layout, layout_of
from modelsoups.checkpoints.states import State, averaged
from modelsoups.checkpoints.states import state_sha256 as state_sha256

Coefficients = Mapping[str, Sequence[float]]  # layer group or tensor -> one coefficient per state
EVERYTHING = "*"  # the layer group of a soup whose coefficients are the same for every tensor
ROOT = "(root)"  # the layer group of tensors that belong to no submodule
T = TypeVar("T")

# The repeated block of open_clip and CLIP (resblocks.N), timm (blocks.N, layers.N.blocks.M, stages.N.blocks.M),
# Hugging Face (layer.N, block.N, h.N) and torchvision (features.N, encoder_layer_N, layerN.M).
_BLOCK = re.compile(
    r"(?:.*?\.)??"
    r"(?:(?:stages|layers)\.\d+\.(?:blocks|layers)|(?:resblocks|blocks|block|layers|layer|stages|features|h)|layer\d+)"
    r"\.(?:\d+|encoder_layer_\d+)(?:\.\d+)?(?=\.)"
)


def layer_of(key: str) -> str:
    """Return the layer group of a tensor: its block ("blocks.3"), otherwise its module."""
    block = _BLOCK.match(key)
    return block[0] if block else key.rpartition(".")[0] or ROOT


def is_block(key: str) -> bool:
    """Return whether a tensor belongs to one of the model's repeated blocks."""
    return _BLOCK.match(key) is not None


class TensorSum:
    """The weighted sum of one tensor over several states, in float64.

    Integer multiples of float32 and narrower numbers add up exactly in float64 (unless they
    differ by a factor of 2**15 or more), so a mean is rounded once and the mean of equal tensors
    is that tensor, bit for bit. For float64 tensors, the differences from the first are summed,
    which are zero for equal tensors.
    """

    def __init__(self) -> None:
        self.first: Tensor | None = None
        self.total: Tensor | None = None
        self.weight = 0.0

    def add(self, tensor: Tensor, weight: float) -> None:
        """Add weight * tensor; the tensor must have the shape and dtype of the first one."""
        if self.first is None:
            self.first = tensor
        assert (tensor.shape, tensor.dtype) == (self.first.shape, self.first.dtype)
        if not averaged(tensor):
            return
        self.weight += weight
        term = self.first - tensor if tensor.dtype == torch.float64 else tensor.double()  # a new tensor
        if weight != 1:
            term.mul_(weight)
        self.total = term if self.total is None else self.total.add_(term)

    def copy(self) -> "TensorSum":
        other = TensorSum()
        other.first, other.weight = self.first, self.weight
        other.total = None if self.total is None else self.total.clone()
        return other

    def divided(self, by: float) -> Tensor:
        assert self.first is not None
        if self.total is None:
            return self.first.clone()
        if self.first.dtype == torch.float64:  # minus: x - 0.0 keeps -0.0
            return self.first * (self.weight / by) - self.total / by
        return (self.total / by).to(self.first.dtype)


class RunningSum:
    """The sum of complete states; raises ValueError if a layout differs from the first."""

    def __init__(self) -> None:
        self.sums: dict[str, TensorSum] = {}
        self.layout: dict[str, str] = {}
        self.count = 0

    def add(self, state: State, weight: float = 1.0) -> None:
        self._check(state)
        for key, tensor in state.items():
            self.sums.setdefault(key, TensorSum()).add(tensor, weight)
        self.count += 1

    def divided(self, by: float) -> dict[str, Tensor]:
        return {key: total.divided(by) for key, total in self.sums.items()}

    def mean_with(self, state: State) -> dict[str, Tensor]:
        """Return the mean of the states added so far and this one, without adding it."""
        return self._divided_with(state, 1.0, self.count + 1)

    def without(self, state: State, by: float) -> dict[str, Tensor]:
        """Return (sum - state) / by, without changing the sum."""
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
    """Return sum_i c_i theta_i (section 2; eq. 2 by layer), with c from `of_group` for each tensor.

    Raises ValueError for a layer group without coefficients or without tensors, or a state whose
    layout differs from the first. See TensorSum for rounding.
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
    """Return fractions with small denominators (1/6, 3/7) as integers and their divisor; others as they are.

    (a + b + c) / 3 is rounded once, in any order; a/3 + b/3 + c/3 is not. A sixth of all float32
    means of six are exactly between two numbers, so the results would differ.
    """
    fractions = [Fraction(c).limit_denominator(10_000) if math.isfinite(c) else Fraction(0) for c in row]
    divisor = math.lcm(*(f.denominator for f in fractions))
    if divisor > 10_000 or any(float(f) != c for f, c in zip(fractions, row, strict=True)):
        return [float(c) for c in row], 1
    return [float(f * divisor) for f in fractions], divisor


def check_groups(names: Iterable[str], coefficients: Coefficients) -> None:
    """Raise ValueError if a group of the coefficients has no tensors."""
    names = list(names)
    groups = {layer_of(key) for key in names}
    if unknown := sorted(set(coefficients) - groups - set(names) - {EVERYTHING}):
        raise ValueError(f"layer group {unknown[0]} has no tensors; groups: {', '.join(sorted(groups))}")


def of_group(key: str, by_group: Mapping[str, T]) -> T:
    """Return a tensor's value in by_group: under its name, its layer group or "*", in order."""
    group = key if key in by_group else layer_of(key)
    if group in by_group:
        return by_group[group]
    if EVERYTHING not in by_group:
        raise ValueError(f"tensor {key}: no coefficients for layer group {group}, nor for {EVERYTHING}")
    return by_group[EVERYTHING]


def interpolate(a: State, b: State, alpha: float) -> dict[str, Tensor]:
    """Return (1 - alpha) a + alpha b."""
    return mix([a, b], {EVERYTHING: [1 - alpha, alpha]})


def angle(start: State, one: State, two: State) -> float:
    """Return the degrees between one - start and two - start (Figure 3), without vectors (J.1).

    Raises ValueError if a model equals the start, because it then has no direction.
    """
    d11, d12, d22 = inner_products(start, one, two, matrices_only=True)
    if d11 * d22 == 0:
        raise ValueError("no angle: a model has the same weights as the start")
    return math.degrees(math.acos(max(-1.0, min(1.0, d12 / (math.sqrt(d11) * math.sqrt(d22))))))


def inner_products(start: State, one: State, two: State, matrices_only: bool = False) -> tuple[float, float, float]:
    """Return d1.d1, d1.d2 and d2.d2 over float tensors, for d1 = one - start, d2 = two - start."""
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
