"""Token ids of texts, and batches of them that are padded to the longest.

Shape letters: B examples of a batch, T tokens of the longest example; two towers have (B, 2, T).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Encoded:
    """The token ids of an example, of one sequence or of two (towers); len() is the longest's."""

    ids: tuple[tuple[int, ...], ...]
    types: tuple[int, ...] | None = None  # which text of a pair a token belongs to: 0 or 1
    cut: bool = False  # whether a text was too long, and was cut

    def __len__(self) -> int:
        return max(map(len, self.ids))


@dataclass(frozen=True)
class TokenBatch:
    """A batch of examples: tensors by argument name of the model, all with one row per example."""

    tensors: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.tensors["input_ids"])

    def __getitem__(self, index_B: Tensor) -> "TokenBatch":
        """Return the examples that a boolean mask or a tensor of indices selects."""
        return self._each(lambda tensor: tensor[index_B.to(tensor.device)])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TokenBatch":
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "TokenBatch":
        return self._each(lambda tensor: tensor.pin_memory())

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        for tensor in self.tensors.values():
            tensor.record_stream(stream)

    def _each(self, function: Callable[[Tensor], Tensor]) -> "TokenBatch":
        return TokenBatch({name: function(tensor) for name, tensor in self.tensors.items()})


def padded(encoded: Sequence[Encoded], padding: int) -> TokenBatch:
    """Return a batch, padded on the right to its longest sequence with the token id `padding`."""
    towers = len(encoded[0].ids)
    sequences = [ids for one in encoded for ids in one.ids]
    longest = max(map(len, sequences))
    tensors = {
        "input_ids": _rows(sequences, longest, padding),
        "attention_mask": _rows(([1] * len(ids) for ids in sequences), longest, 0),
    }
    if towers > 1:
        tensors = {name: rows.view(len(encoded), towers, longest) for name, rows in tensors.items()}
    elif encoded[0].types is not None:
        tensors["token_type_ids"] = _rows((one.types or () for one in encoded), longest, 0)
    return TokenBatch(tensors)


def _rows(rows: Iterable[Sequence[int]], longest: int, padding: int) -> Tensor:
    return torch.tensor([[*row, *[padding] * (longest - len(row))] for row in rows], dtype=torch.int64)
