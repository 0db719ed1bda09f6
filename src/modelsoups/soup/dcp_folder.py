"""Writes the soup of distributed checkpoints (DCP) as a DCP folder, which torch can load."""

import inspect
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from modelsoups.checkpoints.dcp import place_of_weights
from modelsoups.checkpoints.formats import open_checkpoint
from modelsoups.checkpoints.mapped import tensor_of
from modelsoups.checkpoints.states import State
from modelsoups.checkpoints.tensors import Checkpoint, InFile, nbytes
from modelsoups.disk import paths, storage
from modelsoups.weights.mixing import Facts, mix_to_file
from modelsoups.weights.state_dicts import Coefficients

FACTS = "soup.json"  # the method and the ingredients, which a safetensors file has in its metadata


def write_dcp(
    folder: Path,
    checkpoints: Sequence[Checkpoint],
    coefficients: Coefficients,
    facts: Facts,
    replaced: State,
    dtype: torch.dtype | None = None,
) -> list[str]:
    """Write the average of distributed checkpoints as a DCP folder, and return notes.

    Arguments are as for `mix_to_file`; the weights get the keys of the first checkpoint. The
    average is first written to a temporary file, which torch saves from a memory map: memory does
    not grow, but the disk needs room for both.
    """
    first, mixed = checkpoints[0], folder / paths.MODEL
    assert first.folder is not None
    storage.check_space(mixed, 2 * sum(map(nbytes, first.entries.values())))
    known: dict[str, str] = {}

    def remembered(digests: tuple[str, ...]) -> dict[str, str]:
        known.update(facts(digests))
        return known

    notes = mix_to_file(checkpoints, coefficients, mixed, remembered, replaced, dtype)
    opened = open_checkpoint(mixed)
    state: dict[Any, Any] = {name: _in_map(opened.entries[name]) for name in first}
    for key in reversed(place_of_weights(first.folder / first.parts[""].parent)):
        state = {key: state}
    _save(state, folder)
    mixed.unlink()
    storage.write_json(folder / FACTS, {name: json.loads(text) for name, text in known.items()})
    return notes


def _in_map(entry: Any) -> torch.Tensor:
    """Return a tensor of the temporary file that shares the memory of the file's memory map."""
    assert isinstance(entry, InFile)
    if not nbytes(entry):
        return torch.empty(entry.shape, dtype=entry.dtype)
    content = entry.file.read(entry.offset, entry.offset + nbytes(entry))
    return tensor_of(content, entry.dtype).reshape(entry.shape)


def _save(state: dict[Any, Any], folder: Path) -> None:
    """Save a DCP folder with this process alone, even if torch.distributed runs several."""
    from torch.distributed import checkpoint

    alone = {"no_dist": True} if "no_dist" in inspect.signature(checkpoint.save).parameters else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no process group is there
        writer = checkpoint.FileSystemWriter(folder, sync_files=False)  # synced together
        checkpoint.save(state, storage_writer=writer, **alone)
