"""Weighted sums, interpolations and angles of state dicts, computed one tensor at a time."""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
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
    """Return a tensor's layer, for soups "by layer": its block ("blocks.3"), else its module."""
    block = _BLOCK.match(key)
    return block[0] if block else key.rpartition(".")[0] or ROOT


def is_block(key: str) -> bool:
    """Return whether a tensor name is in one of a model's repeated blocks ("blocks.3.bias")."""
    return _BLOCK.match(key) is not None


class TensorSum:
    """A running weighted sum, in float64, of one tensor over several models.

    With integer weights, sums of float32 and narrower numbers are exact in float64, unless the
    numbers differ by a factor of 2**15 or more. So a mean is rounded once, and the mean of equal
    tensors is that tensor, bit for bit. For float64 tensors, the differences from the first tensor
    are summed, which are zero if the tensors are equal.
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
    """A running sum of state dicts; ValueError if names, shapes or dtypes differ from the first."""

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
        """Return the mean of the state dicts added so far and `state`; the sum does not change."""
        return self._divided_with(state, 1.0, self.count + 1)

    def without(self, state: State, by: float) -> dict[str, Tensor]:
        """Return (sum - state) / by, tensor by tensor; the running sum is not changed."""
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
    """Return the weighted sum of states, sum_i c_i theta_i (section 2), by tensor name.

    Raises ValueError if a tensor has no coefficients, coefficients are for no tensor, or the tensor
    names, shapes or dtypes differ. See `TensorSum` for the rounding.
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
            raise ValueError(f"layer group {layer_of(key)}: {len(weights)} coefficients for {len(states)} models")
        total = TensorSum()
        for state, weight in zip(states, weights, strict=True):
            total.add(state[key], weight)
        mixed[key] = total.divided(divisor)
    return mixed


def as_counts(row: Sequence[float]) -> tuple[list[float], int]:
    """Return coefficients as integers and a divisor: [1/3, 2/3] as [1, 2] and 3.

    If the divisor would exceed 10,000, return them unchanged with divisor 1. The purpose: the mean
    (a + b + c) / 3 is rounded once, in any order of a, b and c, but a/3 + b/3 + c/3 several times.
    """
    fractions = [Fraction(c).limit_denominator(10_000) if math.isfinite(c) else Fraction(0) for c in row]
    divisor = math.lcm(*(f.denominator for f in fractions))
    if divisor > 10_000 or any(float(f) != c for f, c in zip(fractions, row, strict=True)):
        return [float(c) for c in row], 1
    return [float(f * divisor) for f in fractions], divisor


def check_groups(names: Iterable[str], coefficients: Coefficients) -> None:
    """Raise ValueError if a key of `coefficients` is neither a tensor name nor a layer group."""
    names = list(names)
    groups = {layer_of(key) for key in names}
    if unknown := sorted(set(coefficients) - groups - set(names) - {EVERYTHING}):
        raise ValueError(f"layer group {unknown[0]} has no tensors; expected one of {', '.join(sorted(groups))}")


def of_group(key: str, by_group: Mapping[str, T]) -> T:
    """Return by_group[key], else by_group[its layer group], else by_group["*"], or ValueError."""
    group = key if key in by_group else layer_of(key)
    if group in by_group:
        return by_group[group]
    if EVERYTHING not in by_group:
        raise ValueError(f"tensor {key}: no coefficients for layer group {group}, nor for {EVERYTHING}")
    return by_group[EVERYTHING]


def interpolate(a: State, b: State, alpha: float) -> dict[str, Tensor]:
    """Return (1 - alpha) a + alpha b for two state dicts, tensor by tensor."""
    return mix([a, b], {EVERYTHING: [1 - alpha, alpha]})


def angle(start: State, one: State, two: State) -> float:
    """Return the angle in degrees between (one - start) and (two - start) (Figure 3).

    It is taken over the repeated weights, without gains (J.1): the matrices in the repeated blocks.
    The head, the first convolution, positions and projections do not count. If no tensor is in such
    a block, all matrices count. Raises ValueError if these weights of a model equal those of `start`.
    """
    d11, d12, d22 = inner_products(start, one, two, repeated_weights(start))
    if d11 * d22 == 0:
        raise ValueError("no angle: a model has the same weights as the starting model")
    return math.degrees(math.acos(max(-1.0, min(1.0, d12 / (math.sqrt(d11) * math.sqrt(d22))))))


def repeated_weights(state: State) -> list[str]:
    """Return the names of the matrices in a model's repeated blocks; without blocks, of all matrices."""
    matrices = [key for key, tensor in state.items() if tensor.is_floating_point() and tensor.ndim >= 2]
    return list(filter(is_block, matrices)) or matrices


def inner_products(
    start: State, one: State, two: State, names: Collection[str] | None = None
) -> tuple[float, float, float]:
    """Return d1.d1, d1.d2 and d2.d2 over float tensors, for d1 = one - start, d2 = two - start.

    names: the tensors to include; None: all.
    """
    d1, d2 = _deltas(one, start, names), _deltas(two, start, names)
    pairs = ((d1, d1), (d1, d2), (d2, d2))
    d11, d12, d22 = (math.fsum(float((a[key] * b[key]).sum()) for key in a) for a, b in pairs)
    return d11, d12, d22


def _deltas(a: State, b: State, names: Collection[str] | None) -> dict[str, Tensor]:
    check_layout(b, layout_of(a), "these models cannot be compared")
    deltas = {}
    for key, tensor in a.items():
        if tensor.is_floating_point() and (names is None or key in names):
            deltas[key] = tensor.double() - b[key].double()
    return deltas
