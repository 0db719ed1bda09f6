"""Checkpoints as states: reading them without running their code, hashing their content, comparing their layout."""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from modelsoups.checkpoints.tensors import Held, Stored

State = Mapping[str, Tensor]
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")  # timm writes .pth.tar, Lightning .ckpt


def averaged(tensor: Tensor) -> bool:
    """Whether mixing averages this tensor; integer and boolean buffers are taken from the first state instead."""
    if tensor.is_complex():
        raise ValueError(f"{describe(tensor)}: complex tensors are not supported")
    return tensor.is_floating_point()


def describe(tensor: Tensor | Stored | Held) -> str:
    """Shape and dtype as error messages show them: "(10, 128) float32"."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def load_state(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a checkpoint, on the CPU; .pt, .pth and .bin are read without running any code in them.

    Raises ValueError naming the file when it is missing, truncated, of another format, holds anything but tensors by
    name, or needs code to load.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: unknown kind of checkpoint; expected {', '.join(SUFFIXES)}")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else read_pickle(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or not safetensors ({error}); delete it and make it again") from error
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} holds a {type(content).__name__}, not tensors by name; save model.state_dict()")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(f"{path}: entry {key} is a {type(value).__name__}, not a tensor; save model.state_dict()")
    return dict(content)


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # it looks at some of the directory, and may not like it
        return False


def read_pickle(path: Path) -> object:
    """A .pt file's content, memory-mapped, without running code in it; argparse.Namespace (timm's args) is let in."""
    zipped = _is_zip(path)  # else written by torch before 1.6 (no memory map), cut off, or foreign
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # of old pickle protocols: they load or they raise
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except OSError:
        raise
    except Exception as error:  # the unpickler raises whatever foreign bytes lead it to
        code = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if code:
            raise ValueError(
                f"{path} holds Python objects ({code[1]}), which can run code, so it is refused; "
                "save model.state_dict(), best as .safetensors"
            ) from error
        raise ValueError(
            f"{path} is truncated, empty or not a PyTorch checkpoint; delete it and make it again"
        ) from error


def state_sha256(state: State) -> str:
    """Hash of the content alone, whatever file or order it came in: 64 hex digits over name, dtype, shape, bytes."""
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(json.dumps([key, str(tensor.dtype), list(tensor.shape)]).encode() + b"\n")
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_alike(states: Mapping[str, State] | Iterable[tuple[str, State]]) -> None:
    """Refuse states that cannot be mixed: other names, shapes or dtypes, or numbers that are not finite.

    Takes id -> state, or (id, state) pairs, of which only names and shapes are kept, so that a generator may load one
    state at a time. Raises ValueError naming the odd ones out (those unlike the largest group) and the first tensor.
    """
    alike: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, state in states.items() if isinstance(states, Mapping) else states:
        for key, tensor in state.items():
            if averaged(tensor) and not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"ingredient {name}: tensor {key} holds NaN or infinity; leave this ingredient out")
        layout = tuple((k, describe(t)) for k, t in sorted(state.items()))
        alike.setdefault(layout, []).append(name)
    if not alike:
        raise ValueError("no ingredients to compare")
    if len(alike) > 1:
        raise ValueError(_difference(alike))


def _difference(alike: Mapping[tuple[tuple[str, str], ...], list[str]]) -> str:
    """One line: who differs from the largest group, in which tensor, and how."""
    usual = max(alike, key=lambda layout: len(alike[layout]))  # the first of equals
    odd = next(layout for layout in alike if layout != usual)
    odd_ones = [name for layout, names in alike.items() if layout != usual for name in names]
    a, b = dict(usual), dict(odd)
    key = next(k for k in [*a, *b] if a.get(k) != b.get(k))
    plural = "ingredients" if len(odd_ones) > 1 else "ingredient"
    return (
        f"{plural} {', '.join(odd_ones)} cannot be mixed with {', '.join(alike[usual][:3])}"
        f"{', ...' if len(alike[usual]) > 3 else ''}: tensor {key} is {b.get(key, 'missing')} in {alike[odd][0]}, "
        f"{a.get(key, 'missing')} in {alike[usual][0]}; mix checkpoints of one architecture"
    )
