"""Data-parallel training of one model by several processes (ranks), and requests to stop it.

torchrun starts the processes; without torchrun there is one. Rank 0 writes all files.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from modelsoups.soup.holdout import Inputs, call

STOPPED = 75  # exit status of a run that saved its state and stopped on request (EX_TEMPFAIL)
TORCHRUN = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}  # variables, defaults without it
LOOK = 1.0  # seconds between two looks for the file that asks for a stop: its disk may be shared by many


class Asked(Event):
    """Set if a run is to stop: by SIGTERM or, looked for once a second, the file $MODELSOUPS_STOP."""

    def __init__(self, file: str | None) -> None:
        super().__init__()
        self.file, self.next = file, 0.0

    def is_set(self) -> bool:
        if self.file and time.monotonic() >= self.next:
            self.next = time.monotonic() + LOOK
            if Path(self.file).exists():
                self.set()
        return super().is_set()


@dataclass(frozen=True)
class Ranks:
    """This process's rank, and the number of processes in total (world) and on this host (here)."""

    rank: int = 0
    world: int = 1
    here: int = 1
    asked: Event | None = None  # set when this process receives a request to stop; None: it never stops early

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wrap(self, model: nn.Module, example: Inputs) -> nn.Module:
        """Return the model, wrapped in DistributedDataParallel (DDP) if there are several ranks.

        DDP regroups the gradients after its first backward pass, which changes how sums over more
        than two ranks are rounded. That first pass runs here, on any inputs, so that resumed and
        uninterrupted runs give the same results. It changes buffers: load the weights afterwards.
        """
        if self.world == 1:
            return model
        network = nn.parallel.DistributedDataParallel(model)  # on the model's device
        call(network, example).sum().backward()
        return network

    def summing(self, network: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Return the context for a micro-batch's backward pass: DDP's no_sync unless `last`."""
        if isinstance(network, nn.parallel.DistributedDataParallel) and not last:
            return network.no_sync()
        return contextlib.nullcontext()

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a scalar tensor over all ranks; every rank must call this method."""
        if self.world > 1:
            dist.all_reduce(value)
            value = value / self.world
        return value

    def from_first(self, value: Any) -> Any:
        """Broadcast rank 0's value, which must be picklable, and return it on every rank."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gathered(self, value: Any) -> list[Any]:
        """Return the values of all ranks, which must be picklable; every rank must call this method."""
        if self.world == 1:
            return [value]
        box: list[Any] = [None] * self.world
        dist.all_gather_object(box, value)
        return box

    def stop(self) -> bool:
        """Return whether any rank got SIGTERM, or the file named by $MODELSOUPS_STOP exists."""
        if self.asked is None:
            return False
        asked = self.asked.is_set()
        if self.world == 1:
            return asked
        any_asked = torch.tensor(int(asked))
        dist.all_reduce(any_asked, op=dist.ReduceOp.MAX)
        return bool(any_asked)

    @property
    def stopped(self) -> int:
        """Return the exit status after a requested stop.

        Under torchrun, which reports a failure with a traceback for any status but 0, it is 0 if a
        batch script looks at $MODELSOUPS_SAVED instead.
        """
        return 0 if self.world > 1 and "MODELSOUPS_SAVED" in os.environ else STOPPED


ALONE = Ranks()


def mark_saved(saved: bool = True) -> None:
    """Create the file $MODELSOUPS_SAVED, which tells sbatch that a run can resume, or delete it."""
    if file := os.environ.get("MODELSOUPS_SAVED"):
        Path(file).touch() if saved else Path(file).unlink(missing_ok=True)


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """Set up torch.distributed from torchrun's variables; in the block, SIGTERM requests a stop."""
    rank, world, local, here = (int(os.environ.get(key, value)) for key, value in TORCHRUN.items())
    asked = Asked(os.environ.get("MODELSOUPS_STOP") if rank == 0 else None)
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
