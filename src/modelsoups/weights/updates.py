"""Rows of weights with low-rank updates (LoRA), computed in float64 each time they are read.

Letters: R rank, O outputs, I inputs, n rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from modelsoups.checkpoints.adapters import Update
from modelsoups.checkpoints.mapped import tensor_of
from modelsoups.checkpoints.tensors import Entry, numbers_of

STEP = 2**20  # numbers that are in memory at a time for the lengths of columns


class Term(Protocol):
    """A function that returns rows `first` to `last` - 1 of a tensor, in float64, read-only."""

    def __call__(self, first: int, last: int, /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Stored:
    """The rows of a stored tensor in float64; a tensor without dimensions has one row."""

    entry: Entry

    def __call__(self, first: int, last: int, /) -> Tensor:
        width = math.prod(self.entry.shape[1:])
        block = self.entry.block(first * width, last * width)
        return tensor_of(block, self.entry.dtype).double().view(last - first, -1)


@dataclass(eq=False)
class Merged:
    """The rows of a weight W plus its update, scale * up @ down, and with DoRA's norms."""

    start: Entry  # W, of shape (O, I...) or, if transposed, (I, O)
    update: Update
    transposed: bool

    def __call__(self, first: int, last: int, /) -> Tensor:
        sum_nI = self._sum(first, last)
        magnitude = self.update.magnitude
        if magnitude is None:
            return sum_nI
        lengths_O = numbers_of(magnitude).double().flatten()
        if self.transposed:
            return sum_nI * (lengths_O / self._columns_O)
        return sum_nI * (lengths_O[first:last] / sum_nI.norm(dim=1))[:, None]

    def add_update(self, total: Tensor, coefficient: float, first: int, last: int) -> None:
        """Add rows `first` to `last` - 1 of coefficient * scale * up @ down to `total` in place."""
        up_OR, down_RI = (numbers_of(factor).flatten(1) for factor in (self.update.up, self.update.down))
        if self.transposed:
            left, right = down_RI[:, first:last].double().T, up_OR.double().T
        else:
            left, right = up_OR[first:last].double(), down_RI.double()
        total.addmm_(left, right, alpha=coefficient * self.update.scale)

    def _sum(self, first: int, last: int) -> Tensor:
        total = Stored(self.start)(first, last).clone()
        self.add_update(total, 1.0, first, last)
        return total

    @cached_property
    def _columns_O(self) -> Tensor:
        """The norm of each column (output) of an updated weight stored transposed, (O,)."""
        count, width = self.start.shape
        step = max(1, STEP // width)
        squares_O = torch.zeros(width, dtype=torch.float64)
        for first in range(0, count, step):
            squares_O += self._sum(first, min(first + step, count)).square().sum(dim=0)
        return squares_O.sqrt()


class Total:
    """The rows of a weighted sum, sum_i c_i term_i; a weight shared by terms is read once."""

    def __init__(self, parts: Sequence[tuple[float, Term]]) -> None:
        self.updates: list[tuple[float, Merged]] = []
        others: list[tuple[float, Term]] = []
        starts: dict[int, tuple[list[float], Entry]] = {}
        for coefficient, term in parts:
            if isinstance(term, Merged) and term.update.magnitude is None:
                self.updates.append((coefficient, term))
                entry = term.start
            elif isinstance(term, Stored):
                entry = term.entry
            else:
                others.append((coefficient, term))
                continue
            starts.setdefault(id(entry), ([], entry))[0].append(coefficient)
        found: list[tuple[float, Term]] = [(math.fsum(row), Stored(entry)) for row, entry in starts.values()]
        self.stored = [*found, *others]

    def __call__(self, first: int, last: int, /) -> Tensor:
        weight, start = self.stored[0]
        total = start(first, last) * weight
        for weight, start in self.stored[1:]:
            if weight != 0:
                total.add_(start(first, last), alpha=weight)
        for weight, merged in self.updates:
            merged.add_update(total, weight, first, last)
        return total
