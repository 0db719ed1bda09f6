"""The two computations on the weights of K models in one step of a learned soup (appendix I).

They are the mixed weights sum_k alpha_k theta_k and, for the gradient g of the loss by these, the
inner products <g, theta_k>, which are the gradient by alpha_k. Each reads all weights once. If the
models fit on a GPU, both are one matrix product for each tensor. Otherwise `fast.blocks` computes
them on the CPU, piece by piece, from memory or, if memory is short, from the files. Each tensor
then costs at least 100 microseconds, so small ones in memory are multiplied as matrices instead.
Letters of array names: K models, N numbers of a tensor, n of a piece, S pieces.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from modelsoups.checkpoints.mapped import tensor_of
from modelsoups.checkpoints.states import State, averaged
from modelsoups.checkpoints.tensors import Entry, InMemory, checkpoint_of
from modelsoups.weights.fast import blocks
from modelsoups.weights.fast.blocks import Piece, Room, Rows, each_piece, pieces, size_of_pieces
from modelsoups.weights.state_dicts import of_group

RESIDENT = {"cpu": 4 * 2**30, "cuda": 16 * 2**30}  # bytes that rows may take in memory
SMALL = 2**20  # largest number of elements of a tensor's rows that are multiplied on the CPU
TOGETHER = 2**21  # numbers (of all states together) whose inner products are computed at a time
COLUMNS = 2**20  # columns of bfloat16 rows that are widened at a time


class Stack:
    """The weights of K models: for each tensor, a matrix whose row k is that of model k, flattened.

    resident: bytes that the weights may take on `device`, by default RESIDENT; if they need more,
    the files are read at each step. If they fit on a GPU only in bfloat16, each tensor's difference
    from its mean over the models is stored, and the mean in float32, to lose less precision.
    """

    def __init__(
        self,
        states: Sequence[State],
        device: torch.device | str = "cpu",
        resident: int | None = None,
        keys: Iterable[str] | None = None,
    ) -> None:
        self.opened, self.device = [checkpoint_of(state) for state in states], torch.device(device)
        first = self.opened[0]
        self.shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        for key in first if keys is None else keys:
            averaged(first.entries[key])  # refuses complex numbers
            self.shapes[key] = tuple(first.entries[key].shape), first.entries[key].dtype
        self.averaged = [key for key, (_, dtype) in self.shapes.items() if dtype.is_floating_point]
        self.sizes = {key: math.prod(shape) for key, (shape, _) in self.shapes.items()}
        self.kept = {key: first[key] for key in self.shapes if key not in self.averaged}  # integers
        self.rows: dict[str, Tensor] = {}  # rows that are multiplied
        self.means: dict[str, Tensor] = {}
        budget = RESIDENT.get(self.device.type, 0) if resident is None else resident
        numbers = len(self) * sum(self.sizes[key] for key in self.averaged)
        width = max([4, *(self.shapes[key][1].itemsize for key in self.averaged)])
        fit = numbers * width <= budget
        if fit and self.device.type == "cpu":
            small = [key for key in self.averaged if len(self) * self.sizes[key] <= SMALL]
            self.load(small, halved=False)
            large = set(self.averaged) - set(small)
            for k, state in enumerate(self.opened):
                held: dict[str, Entry] = {key: InMemory(state[key].contiguous()) for key in large}
                self.opened[k] = replace(state, entries=held, tied={})
        elif fit or (numbers * 2 <= budget and self.device.type == "cuda"):
            self.load(self.averaged, halved=not fit)

    def __len__(self) -> int:
        return len(self.opened)

    def load(self, keys: Iterable[str], halved: bool) -> None:
        """Read tensors `keys` of all models; `halved`: as bfloat16 differences from their mean."""
        for key in keys:
            shape, dtype = self.shapes[key]
            wide = torch.float64 if dtype == torch.float64 else torch.float32
            rows_KN = torch.empty(len(self), math.prod(shape), dtype=wide, device="cpu" if halved else self.device)
            for row_N, state in zip(rows_KN, self.opened, strict=True):
                row_N.copy_(state[key].reshape(-1))
            if halved:
                self.means[key] = rows_KN.mean(dim=0).to(self.device)
                rows_KN = (rows_KN - self.means[key].cpu()).bfloat16().to(self.device)
            self.rows[key] = rows_KN
        self.kept = {key: tensor.to(self.device) for key, tensor in self.kept.items()}

    def mixed(self, coefficients: Mapping[str, Sequence[float]]) -> dict[str, Tensor]:
        """Return the weighted sum of the models by tensor name, in their dtypes."""
        flat = self._passed_mix(coefficients)
        flat |= {key: self._mixed(key, of_group(key, coefficients)) for key in self.rows}
        mixed = dict(self.kept)
        for key, flat_N in flat.items():
            shape, dtype = self.shapes[key]
            mixed[key] = flat_N.to(dtype).reshape(shape)
        return {key: mixed[key] for key in self.shapes}

    def products(self, by_weights: State) -> dict[str, Tensor]:
        """Return by tensor name the (K,) inner products of `by_weights` and each model."""
        passed = {key: g for key, g in by_weights.items() if key not in self.rows}
        found = self._passed_products(passed)
        for key in by_weights.keys() - passed.keys():
            found[key] = self._products(key, by_weights[key].reshape(-1))
        return {key: found[key] for key in by_weights}

    def _mixed(self, key: str, row: Sequence[float]) -> Tensor:
        rows_KN = self.rows[key]
        if key not in self.means:
            return torch.tensor(row, dtype=rows_KN.dtype, device=self.device) @ rows_KN
        alpha_K = torch.tensor(row, dtype=torch.float32, device=self.device)
        mixed_N = self.means[key] * sum(row)
        for part_n, rows_Kn in zip(mixed_N.split(COLUMNS), rows_KN.split(COLUMNS, dim=1), strict=True):
            part_n += alpha_K @ rows_Kn.float()
        return mixed_N

    def _products(self, key: str, g_N: Tensor) -> Tensor:
        rows_KN = self.rows[key]
        if key not in self.means:
            return (rows_KN @ g_N.to(rows_KN)).double().cpu()
        g_N = g_N.float()
        total_K = (self.means[key] @ g_N).double().expand(len(self)).clone()
        for part_n, rows_Kn in zip(g_N.split(COLUMNS), rows_KN.split(COLUMNS, dim=1), strict=True):
            total_K += (rows_Kn.float() @ part_n).double()
        return total_K.cpu()

    def _passed_mix(self, coefficients: Mapping[str, Sequence[float]]) -> dict[str, Tensor]:
        keys = [key for key in self.averaged if key not in self.rows]
        flat = {key: torch.empty(self.sizes[key], dtype=self.shapes[key][1]) for key in keys}
        alphas = {group: np.array(row, np.float64) for group, row in coefficients.items()}

        def one(room: Room, rows: Rows, number: int, piece: Piece) -> None:
            key, start, stop = piece
            flat[key][start:stop] = room.mix(rows, piece, of_group(key, alphas), 1)[0]

        todo = pieces(self.opened[0], flat, size_of_pieces(len(self)))
        each_piece(self.opened, todo, lambda: partial(one, Room()))
        return flat

    def _passed_products(self, by_weights: State) -> dict[str, Tensor]:
        flat: dict[str, Tensor] = {}
        for key, g in by_weights.items():
            wide = torch.promote_types(self.shapes[key][1], torch.float32)
            flat[key] = g.reshape(-1).to("cpu", wide).contiguous()
        todo = pieces(self.opened[0], flat, size_of_pieces(len(self)))
        found_SK = np.empty((len(todo), len(self)))

        def one(room: Room, rows: Rows, number: int, piece: Piece) -> None:
            key, start, stop = piece
            room.products(rows, piece, flat[key][start:stop], found_SK[number])

        each_piece(self.opened, todo, lambda: partial(one, Room()))
        totals = {key: torch.zeros(len(self), dtype=torch.float64) for key in flat}
        for (key, _, _), found_K in zip(todo, torch.from_numpy(found_SK), strict=True):
            totals[key] += found_K
        return totals


def grams(states: Sequence[State], keys: Iterable[str]) -> dict[str, Tensor]:
    """Return for each tensor name the inner products of all pairs of states, (K, K) in float64."""
    opened = [checkpoint_of(state) for state in states]
    found = {key: torch.zeros(len(opened), len(opened), dtype=torch.float64) for key in keys}
    memory_Kn = torch.empty(len(opened), max(1, TOGETHER // len(opened)), dtype=torch.float64)
    todo = pieces(opened[0], found, memory_Kn.shape[1])
    last, rows = blocks.last_of_windows(opened, todo), Rows(opened)
    for number, piece in enumerate(todo):
        key, start, stop = piece
        block_Kn = memory_Kn[:, : stop - start]
        for some in rows.groups():
            for into_n, block in zip(block_Kn[some], rows.blocks(some, piece), strict=True):
                into_n.copy_(tensor_of(block, rows.dtype(key)))
        found[key] += block_Kn @ block_Kn.T
        if number in last:
            for checkpoint in opened:
                checkpoint.release()
    return found
