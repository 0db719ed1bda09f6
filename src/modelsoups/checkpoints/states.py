"""State dicts: which of their tensors a soup averages, and a hash of their contents."""

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor

from modelsoups.checkpoints.tensors import Entry

State = Mapping[str, Tensor]


def describe(tensor: Tensor | Entry) -> str:
    """Return a tensor's shape and dtype for error messages, such as "(10, 128) float32"."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def averaged(tensor: Tensor | Entry) -> bool:
    """Return whether a soup averages this tensor: True for floats; ValueError if complex."""
    if tensor.dtype.is_complex:
        raise ValueError(f"a tensor is {describe(tensor)}: complex tensors are not supported")
    return tensor.dtype.is_floating_point


def is_finite(tensor: Tensor) -> bool:
    """Return whether a tensor has no NaN or infinity; also for float8, unlike torch.isfinite."""
    wide = tensor.float() if tensor.dtype.is_floating_point and tensor.dtype.itemsize == 1 else tensor
    return bool(torch.isfinite(wide).all())


def state_sha256(state: State) -> str:
    """Return the SHA-256 (hex) of all tensors' names, dtypes, shapes and bytes, sorted by name."""
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(json.dumps([key, str(tensor.dtype), list(tensor.shape)]).encode() + b"\n")
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
