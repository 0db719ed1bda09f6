"""The two sums over all ingredients that a step of a learned soup needs, at the speed of the memory that holds them.

mixed = sum_k alpha_k theta_k and <g, theta_k> for every k are a vector times a matrix and a matrix times a vector, the
matrix having one row an ingredient; each reads the K P weights once. On a GPU they are that, tensor by tensor, if the
rows fit there; on the CPU passes (`core.passes`) over rows in memory, if they fit, else in files. A pass costs some
100 microseconds a tensor, so that small tensors are multiplied on the CPU too.

Memory beside the model: K P numbers where they stay (as they are; on a GPU 4 bytes, 2 where 4 do not fit), and that of
a pass, whatever K and P.
Legend: K ingredients, P weights, N of one tensor, n and S: numbers of a piece, pieces.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from modelsoups.checkpoints.formats import Checkpoint, opened_state
from modelsoups.checkpoints.states import averaged
from modelsoups.checkpoints.tensors import Held
from modelsoups.weights import passes
from modelsoups.weights.fast.blocks import Piece, Room, Rows, size_of_pieces, tensor_of
from modelsoups.weights.passes import each_piece, pieces
from modelsoups.weights.state_dicts import of_group

State = Mapping[str, Tensor]
RESIDENT = {"cpu": 4 * 2**30, "cuda": 16 * 2**30}  # bytes of rows that stay in memory
SMALL = 2**20  # numbers of a tensor's rows on the CPU up to which they are multiplied
TOGETHER = 2**21  # numbers that are multiplied with each other at a time
COLUMNS = 2**20  # of bfloat16 rows that are widened at a time


class Stack:
    """Rows of weights, one an ingredient; resident on `device` where they fit, else read from their files each time.

    states are mappings of tensors; those of `core.readers` are read when needed and never whole. resident: bytes that
    rows may take, by default RESIDENT of the device. Rows that fit only as bfloat16 hold the differences to the mean,
    which stays float32, so that they keep eight bits of what a fine-tuning changed; on the CPU they are streamed.
    keys: the tensors that matter, by default all.
    """

    def __init__(
        self,
        states: Sequence[State],
        device: torch.device | str = "cpu",
        resident: int | None = None,
        keys: Iterable[str] | None = None,
    ) -> None:
        self.opened, self.device = [opened_state(state) for state in states], torch.device(device)
        first = self.opened[0]
        self.shapes = {key: _shape(first, key) for key in (first if keys is None else keys)}
        self.kept = {key: first[key] for key in self.shapes if key not in self._averaged()}  # integers: the first one's
        budget = RESIDENT.get(self.device.type, 0) if resident is None else resident
        numbers = len(states) * sum(math.prod(self.shapes[key][0]) for key in self._averaged())
        width = max([4, *(self.shapes[key][1].itemsize for key in self._averaged())])
        self.rows: dict[str, Tensor] = {}  # those that are multiplied
        self.means: dict[str, Tensor] = {}
        fit = numbers * width <= budget
        if fit and self.device.type == "cpu":
            small = [key for key in self._averaged() if len(self) * math.prod(self.shapes[key][0]) <= SMALL]
            self._load(small, halved=False)
            self.opened = [_held(state, set(self._averaged()) - set(small)) for state in self.opened]
        elif fit or (numbers * 2 <= budget and self.device.type == "cuda"):
            self._load(self._averaged(), halved=not fit)

    def __len__(self) -> int:
        return len(self.opened)

    def _averaged(self) -> list[str]:
        return [key for key, (_, dtype) in self.shapes.items() if dtype.is_floating_point]

    def _load(self, keys: Iterable[str], halved: bool) -> None:
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
        """sum_k alpha_k theta_k by the groups of `core.weights.mix`, in float32 (float64 for such tensors)."""
        flat = self._passed_mix(coefficients)
        flat |= {key: self._mixed(key, of_group(key, coefficients)) for key in self.rows}
        shaped = {key: flat_N.to(self.shapes[key][1]).reshape(self.shapes[key][0]) for key, flat_N in flat.items()}
        return {key: shaped[key] if key in shaped else self.kept[key] for key in self.shapes}

    def products(self, by_weights: State) -> dict[str, Tensor]:
        """{tensor: <g, theta_k> of every k} in float64 on the CPU, for the tensors that have a derivative g."""
        found = self._passed_products({key: g for key, g in by_weights.items() if key not in self.rows})
        return {
            key: self._products(key, g.reshape(-1)) if key in self.rows else found[key] for key, g in by_weights.items()
        }

    # ---- rows that are multiplied ----

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

    # ---- the others, in memory or files ----

    def _passed_mix(self, coefficients: Mapping[str, Sequence[float]]) -> dict[str, Tensor]:
        keys = [key for key in self._averaged() if key not in self.rows]
        flat = {key: torch.empty(math.prod(self.shapes[key][0]), dtype=self.shapes[key][1]) for key in keys}
        alphas = {group: np.array(row, np.float64) for group, row in coefficients.items()}

        def one(room: Room, ingredients: Rows, number: int, piece: Piece) -> None:
            key, start, stop = piece
            flat[key][start:stop] = room.mix(ingredients, piece, of_group(key, alphas), 1)[0]

        each_piece(self.opened, pieces(self.opened[0], flat, size_of_pieces(len(self))), lambda: partial(one, Room()))
        return flat

    def _passed_products(self, by_weights: State) -> dict[str, Tensor]:
        wide = {key: torch.promote_types(self.shapes[key][1], torch.float32) for key in by_weights}
        flat = {key: g.reshape(-1).to("cpu", wide[key]).contiguous() for key, g in by_weights.items()}
        todo = pieces(self.opened[0], flat, size_of_pieces(len(self)))
        found_SK = np.empty((len(todo), len(self)))

        def one(room: Room, ingredients: Rows, number: int, piece: Piece) -> None:
            key, start, stop = piece
            room.products(ingredients, piece, flat[key][start:stop], found_SK[number])

        each_piece(self.opened, todo, lambda: partial(one, Room()))
        totals = {key: torch.zeros(len(self), dtype=torch.float64) for key in flat}
        for (key, _, _), found_K in zip(todo, torch.from_numpy(found_SK), strict=True):
            totals[key] += found_K
        return totals


def grams(states: Sequence[State], keys: Iterable[str]) -> dict[str, Tensor]:
    """{tensor: its inner products between all states, K x K in float64}, a block of all states in memory at a time."""
    opened = [opened_state(state) for state in states]
    found = {key: torch.zeros(len(opened), len(opened), dtype=torch.float64) for key in keys}
    memory_Kn = torch.empty(len(opened), max(1, TOGETHER // len(opened)), dtype=torch.float64)
    todo = pieces(opened[0], found, memory_Kn.shape[1])
    full, rows = passes.windows(opened, todo), Rows(opened)
    dtypes = {key: opened[0].entries[key].dtype for key in found}
    for number, (key, start, stop) in enumerate(todo):
        block_Kn = memory_Kn[:, : stop - start]
        for some, blocks in rows.read((key, start, stop)):
            for into_n, block in zip(block_Kn[some], blocks, strict=True):
                into_n.copy_(tensor_of(block, dtypes[key]))
        found[key] += block_Kn @ block_Kn.T
        if number in full:
            for state in opened:
                state.forget()
    return found


def _held(state: Checkpoint, keys: Iterable[str]) -> Checkpoint:
    """Its tensors in memory; what is there already is not copied."""
    return replace(state, entries={key: Held(state[key].contiguous()) for key in keys}, tied={})


def _shape(state: Checkpoint, key: str) -> tuple[tuple[int, ...], torch.dtype]:
    entry = state.entries[key]
    averaged(torch.empty(0, dtype=entry.dtype))  # refuses what cannot be
    return tuple(entry.shape), entry.dtype
