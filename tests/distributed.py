"""Distributed checkpoints as PyTorch writes them, whole or in shards."""

import os
import pickle
import socket
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from ranks import codes, fork
from torch import Tensor
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorStorageMetadata

MINUTE = timedelta(seconds=60)
Boxes = Sequence[tuple[Sequence[int], Sequence[int]]]  # where a shard begins, and its sizes


def save(state: Mapping[str, object], folder: Path, **options: object) -> Path:
    """Save by this process alone."""
    writer = dcp.FileSystemWriter(folder, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there is one process only
        dcp.save(dict(state), storage_writer=writer)
    return folder


def save_in_shards(tensor: Tensor, boxes: Boxes, folder: Path) -> Path:
    """Save a tensor w as several processes would that hold these parts of it, each in a file of its own."""
    parts = {f"{i}": tensor[tuple(slice(a, a + n) for a, n in zip(*box, strict=True))] for i, box in enumerate(boxes)}
    save({"model": parts}, folder, single_file_per_rank=False)
    with open(folder / ".metadata", "rb") as file:
        found = pickle.load(file)
    chunks, places = [], {}
    for i, (offsets, sizes) in enumerate(boxes):
        chunks.append(ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
        old = next(index for index in found.storage_data if index.fqn == f"model.{i}")
        places[MetadataIndex("model.w", offsets, i)] = found.storage_data[old]
    properties = next(iter(found.state_dict_metadata.values())).properties
    found.state_dict_metadata = {"model.w": TensorStorageMetadata(properties, tensor.shape, chunks)}
    found.storage_data, found.planner_data = places, {"model.w": ("model", "w")}
    with open(folder / ".metadata", "wb") as file:
        pickle.dump(found, file)
    return folder


def by_processes(world: int, act: Callable[[], None]) -> None:
    """Run a function in processes that save together (gloo)."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"

    def rank(number: int) -> None:
        try:
            torch.set_num_threads(1)
            dist.init_process_group("gloo", rank=number, world_size=world, init_method=address, timeout=MINUTE)
            act()
            dist.destroy_process_group()
        except BaseException:
            traceback.print_exc(file=sys.stderr)
            os._exit(1)

    assert codes([fork(lambda number=number: rank(number)) for number in range(world)]) == [0] * world
