"""The processes (ranks) that train one ingredient together, and requests to stop them.

torchrun starts them; without torchrun there is one process. Rank 0 writes the files.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

STOPPED = 75  # exit status of a run that saved its state and stopped on request (EX_TEMPFAIL)
TORCHRUN = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}  # variables, defaults without it


@dataclass(frozen=True)
class Ranks:
    """This process's rank, and the number of ranks in total (world) and on this machine (here)."""

    rank: int = 0
    world: int = 1
    here: int = 1
    asked: Event | None = None  # set when this process receives a request to stop; None: it never stops early

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wrap(self, model: nn.Module, images_BCHW: Tensor) -> nn.Module:
        """Return the model for training, wrapped so that its gradients are the mean over all ranks.

        After its first pass, DistributedDataParallel groups the gradients differently, which changes
        sums over more than two ranks. That pass runs here, on any images, so that results do not
        depend on where a run was resumed. It changes buffers: load the model's state afterwards.
        """
        if self.world == 1:
            return model
        network = nn.parallel.DistributedDataParallel(model)  # on the model's device
        network(images_BCHW).sum().backward()
        return network

    def summing(self, network: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Return a part's backward context; ranks exchange gradients only in the last part."""
        if isinstance(network, nn.parallel.DistributedDataParallel) and not last:
            return network.no_sync()
        return contextlib.nullcontext()

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a scalar over the ranks, on every rank."""
        if self.world > 1:
            dist.all_reduce(value)
            value = value / self.world
        return value

    def from_first(self, value: Any) -> Any:
        """Return rank 0's value, on every rank; it must be picklable."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def stop(self) -> bool:
        """Return whether any rank should stop, because of SIGTERM or the batch script's file."""
        if self.asked is None:
            return False
        file = os.environ.get("MODELSOUPS_STOP")
        asked = self.asked.is_set() or (file is not None and Path(file).exists())
        if self.world == 1:
            return asked
        any_asked = torch.tensor(int(asked))
        dist.all_reduce(any_asked, op=dist.ReduceOp.MAX)
        return bool(any_asked)


ALONE = Ranks()


def mark_saved(saved: bool = True) -> None:
    """Record for the batch script, by a file, whether a restart after a crash can resume."""
    if file := os.environ.get("MODELSOUPS_SAVED"):
        Path(file).touch() if saved else Path(file).unlink(missing_ok=True)


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """Join the other ranks; inside the with block, SIGTERM requests a stop."""
    rank, world, local, here = (int(os.environ.get(key, value)) for key, value in TORCHRUN.items())
    asked = Event()
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    if torch.cuda.is_available():
        torch.cuda.set_device(local % torch.cuda.device_count())
    if world > 1:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Ranks(rank, world, here, asked)
        if world > 1:  # not after an error: other ranks might never answer, and torchrun stops them
            dist.destroy_process_group()
    finally:
        signal.signal(signal.SIGTERM, before)
