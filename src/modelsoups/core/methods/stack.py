"""The two sums over all ingredients that a step of a learned soup needs, at the speed of the memory that holds them.

mixed = sum_k alpha_k theta_k and <g, theta_k> for every k are a vector times a matrix and a matrix times a vector, the
matrix having one row an ingredient; each reads the K P weights once. They are done tensor by tensor on rows that stay
in memory where these fit, else block by block on rows that are read from their files anew.

Memory beside the model: K P numbers where they stay (4 bytes each; 2 on a GPU where 4 do not fit), else BLOCK numbers,
whatever K and P, and the system's cache of the files, as far as there is memory for it. All cores work on one block:
Python threads with a block each would wait for each other (results/LOG.md).
Legend: K ingredients, P weights, N of one tensor, G groups.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeGuard

import torch
from torch import Tensor

from modelsoups.core.checkpoints import averaged
from modelsoups.core.readers import Checkpoint, Stored
from modelsoups.core.weights import of_group

State = Mapping[str, Tensor]
Piece = tuple[str, int, int]  # elements start to stop of a tensor
RESIDENT = {"cpu": 4 * 2**30, "cuda": 16 * 2**30}  # bytes of rows that stay in memory
BLOCK = 2**20  # numbers worked on at a time: they stay in the cores' caches while rows pass by
COLUMNS = 2**20  # of bfloat16 rows that are widened at a time


class Stack:
    """Rows of weights, one an ingredient; resident on `device` where they fit, else read block by block each time.

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
        self.states, self.device = states, torch.device(device)
        first = states[0]
        self.shapes = {key: _shape(first, key) for key in (first if keys is None else keys)}
        self.kept = {key: first[key] for key in self.shapes if key not in self._averaged()}  # integers: the first one's
        budget = RESIDENT.get(self.device.type, 0) if resident is None else resident
        numbers = len(states) * sum(math.prod(self.shapes[key][0]) for key in self._averaged())
        width = max([4, *(self.shapes[key][1].itemsize for key in self._averaged())])
        self.rows_of = [_Row(state) for state in states]
        self.rows: dict[str, Tensor] | None = None
        self.means: dict[str, Tensor] = {}
        if numbers * width <= budget or (numbers * 2 <= budget and self.device.type == "cuda"):
            self._load(halved=numbers * width > budget)

    def __len__(self) -> int:
        return len(self.states)

    def _averaged(self) -> list[str]:
        return [key for key, (_, dtype) in self.shapes.items() if dtype.is_floating_point]

    def _load(self, halved: bool) -> None:
        self.rows = {}
        for key in self._averaged():
            shape, dtype = self.shapes[key]
            wide = torch.float64 if dtype == torch.float64 else torch.float32
            rows_KN = torch.empty(len(self), math.prod(shape), dtype=wide, device="cpu" if halved else self.device)
            for row_N, state in zip(rows_KN, self.states, strict=True):
                row_N.copy_(state[key].reshape(-1))
            if halved:
                self.means[key] = rows_KN.mean(dim=0).to(self.device)
                rows_KN = (rows_KN - self.means[key].cpu()).bfloat16().to(self.device)
            self.rows[key] = rows_KN
        self.kept = {key: tensor.to(self.device) for key, tensor in self.kept.items()}

    def mixed(self, coefficients: Mapping[str, Sequence[float]]) -> dict[str, Tensor]:
        """sum_k alpha_k theta_k by the groups of `core.weights.mix`, in float32 (float64 for such tensors)."""
        if self.rows is None:
            flat = self._streamed_mix(coefficients)
        else:
            flat = {key: self._mixed(key, of_group(key, coefficients)) for key in self.rows}
        shaped = {key: flat_N.to(self.shapes[key][1]).reshape(self.shapes[key][0]) for key, flat_N in flat.items()}
        return {key: shaped[key] if key in shaped else self.kept[key] for key in self.shapes}

    def products(self, by_weights: State) -> dict[str, Tensor]:
        """{tensor: <g, theta_k> of every k} in float64 on the CPU, for the tensors that have a derivative g."""
        if self.rows is None:
            return self._streamed_products(by_weights)
        return {key: self._products(key, g.reshape(-1)) for key, g in by_weights.items()}

    # ---- rows in memory ----

    def _mixed(self, key: str, row: Sequence[float]) -> Tensor:
        assert self.rows is not None
        rows_KN = self.rows[key]
        if key not in self.means:
            return torch.tensor(row, dtype=rows_KN.dtype, device=self.device) @ rows_KN
        alpha_K = torch.tensor(row, dtype=torch.float32, device=self.device)
        mixed_N = self.means[key] * sum(row)
        for part_n, rows_Kn in zip(mixed_N.split(COLUMNS), rows_KN.split(COLUMNS, dim=1), strict=True):
            part_n += alpha_K @ rows_Kn.float()
        return mixed_N

    def _products(self, key: str, g_N: Tensor) -> Tensor:
        assert self.rows is not None
        rows_KN = self.rows[key]
        if key not in self.means:
            return (rows_KN @ g_N.to(rows_KN)).double().cpu()
        g_N = g_N.float()
        total_K = (self.means[key] @ g_N).double().expand(len(self)).clone()
        for part_n, rows_Kn in zip(g_N.split(COLUMNS), rows_KN.split(COLUMNS, dim=1), strict=True):
            total_K += (rows_Kn.float() @ part_n).double()
        return total_K.cpu()

    # ---- rows in files ----

    def _streamed_mix(self, coefficients: Mapping[str, Sequence[float]]) -> dict[str, Tensor]:
        flat = {k: torch.empty(math.prod(self.shapes[k][0]), dtype=self._wide(k)) for k in self._averaged()}
        for key, start, stop in self._pieces(flat):
            into_n = flat[key][start:stop].zero_()
            alpha_K = torch.tensor(of_group(key, coefficients), dtype=into_n.dtype)
            for row_n, alpha_1 in zip(self._pieces_of((key, start, stop)), alpha_K.split(1), strict=True):
                into_n.addmv_(row_n.unsqueeze(1), alpha_1)  # BLAS: quicker than add_
        return flat

    def _streamed_products(self, by_weights: State) -> dict[str, Tensor]:
        flat = {key: g.reshape(-1).to("cpu", self._wide(key)) for key, g in by_weights.items()}
        found = {key: torch.zeros(len(self), dtype=torch.float64) for key in flat}
        for key, start, stop in self._pieces(flat):
            g_n = flat[key][start:stop]
            found[key] += torch.stack([row_n @ g_n for row_n in self._pieces_of((key, start, stop))]).double()
        return found

    def _wide(self, key: str) -> torch.dtype:
        return torch.float64 if self.shapes[key][1] == torch.float64 else torch.float32

    def _pieces(self, keys: Iterable[str]) -> list[Piece]:
        sizes = {key: math.prod(self.shapes[key][0]) for key in keys}
        return [(key, s, min(s + BLOCK, n)) for key, n in sizes.items() for s in range(0, n, BLOCK)]

    def _pieces_of(self, piece: Piece) -> Iterator[Tensor]:
        """These elements of one ingredient after the other."""
        key, start, stop = piece
        for row in self.rows_of:
            yield row.read(key, start, stop).to(self._wide(key))


class _Row:
    """An ingredient's tensors, flat: of a safetensors file as a memory map, so that nothing is copied.

    Its pages are the system's cache of the file, which takes them back when memory is short.
    """

    def __init__(self, state: State) -> None:
        self.state, self.maps = state, dict[str, mmap.mmap]()
        self.stored = {k: e for k, e in state.entries.items() if isinstance(e, Stored)} if _lazy(state) else {}
        for entry in self.stored.values():
            if str(entry.file) not in self.maps:
                self.maps[str(entry.file)] = mmap.mmap(entry.descriptor, 0, access=mmap.ACCESS_COPY)  # never written

    def read(self, key: str, start: int, stop: int) -> Tensor:
        if key not in self.stored:
            return self.state[key].reshape(-1)[start:stop]
        entry = self.stored[key]
        at = entry.offset + start * entry.dtype.itemsize
        return torch.frombuffer(self.maps[str(entry.file)], dtype=entry.dtype, count=stop - start, offset=at)


def _lazy(state: State) -> TypeGuard[Checkpoint]:
    return isinstance(state, Checkpoint)


def grams(states: Sequence[State], keys: Iterable[str]) -> dict[str, Tensor]:
    """{tensor: its inner products between all states, K x K in float64}, a block of all states in memory at a time."""
    stack = Stack(states, resident=0, keys=keys)
    found = {key: torch.zeros(len(states), len(states), dtype=torch.float64) for key in stack.shapes}
    step = max(1, 2 * BLOCK // len(states))
    memory_Kn = torch.empty(len(states), step, dtype=torch.float64)
    for key, first, last in stack._pieces(found):
        for start in range(first, last, step):
            piece = key, start, min(start + step, last)
            block_Kn = memory_Kn[:, : piece[2] - start]
            for into_n, row_n in zip(block_Kn, stack._pieces_of(piece), strict=True):
                into_n.copy_(row_n)
            found[key] += block_Kn @ block_Kn.T
    return found


def _shape(state: State, key: str) -> tuple[tuple[int, ...], torch.dtype]:
    entry = state.entries[key] if isinstance(state, Checkpoint) else state[key]
    averaged(torch.empty(0, dtype=entry.dtype))  # refuses what cannot be
    return tuple(entry.shape), entry.dtype
