"""States: mappings from tensor names to tensors. Which tensors mixing averages, and a hash of the
content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

State = Mapping[str, Tensor]


class Described(Protocol):
    """Anything with a shape and a dtype: a tensor, or the place of one in a file."""

    @property
    def shape(self) -> Sequence[int]: ...
    @property
    def dtype(self) -> torch.dtype: ...


def describe(tensor: Described) -> str:
    """Shape and dtype as error messages show them: "(10, 128) float32"."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def averaged(tensor: Described) -> bool:
    """Whether mixing averages this tensor: integers and booleans are copied from the first state.

    Raises ValueError for complex numbers.
    """
    if tensor.dtype.is_complex:
        raise ValueError(f"{describe(tensor)}: complex tensors are not supported")
    return tensor.dtype.is_floating_point


def state_sha256(state: State) -> str:
    """SHA-256 (64 hex digits) over name, dtype, shape and bytes of all tensors, sorted by name.

    It does not depend on the file format or on the order of the tensors. Manifests and caches keep
    it.
    """
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(json.dumps([key, str(tensor.dtype), list(tensor.shape)]).encode() + b"\n")
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
