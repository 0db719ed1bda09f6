"""The processes (ranks) that train one ingredient together, and how they are asked to stop.

torchrun starts them and says in the environment who is who; without it there is one. Files are written by rank 0.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

STOPPED = 75  # exit status of a run that saved itself because it was asked to stop (EX_TEMPFAIL)
TORCHRUN = {
    "RANK": 0,
    "WORLD_SIZE": 1,
    "LOCAL_RANK": 0,
    "LOCAL_WORLD_SIZE": 1,
}  # its words, and what stands without
_asked = False  # SIGTERM came


@dataclass(frozen=True)
class Ranks:
    rank: int = 0
    world: int = 1
    here: int = 1  # of them on this machine
    listen: bool = False  # whether they can be asked to stop

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wrap(self, model: nn.Module, images_BCHW: Tensor) -> nn.Module:
        """The model as it is called in training: its gradients become the mean over all ranks'.

        DDP groups the gradients anew after its first pass, and another grouping sums those of more than two ranks in
        another order. So that pass is made here, on any images: later ones do not tell where a run was resumed. It
        changes buffers; load the model's state afterwards.
        """
        if self.world == 1:
            return model
        network = nn.parallel.DistributedDataParallel(model)  # the device is the one that the model is on
        network(images_BCHW).sum().backward()
        return network

    def summing(self, network: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Around a part's backward pass: gradients cross the ranks with the last part of a batch alone."""
        if isinstance(network, nn.parallel.DistributedDataParallel) and not last:
            return network.no_sync()
        return contextlib.nullcontext()

    def mean(self, value: Tensor) -> Tensor:
        """A scalar's mean over the ranks, the same on each."""
        if self.world > 1:
            dist.all_reduce(value)
            value = value / self.world
        return value

    def told(self, value: Any) -> Any:
        """Rank 0's value, a plain one, on every rank."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def stop(self) -> bool:
        """Whether any rank has been asked to stop; the same on each."""
        if self.world == 1 or not self.listen:
            return self.listen and asked_to_stop()
        word = torch.tensor(int(asked_to_stop()))
        dist.all_reduce(word, op=dist.ReduceOp.MAX)
        return bool(word)


ALONE = Ranks()


def asked_to_stop() -> bool:
    """Whether SIGTERM came, or the file is there that the batch script makes before its time is over."""
    file = os.environ.get("MODELSOUPS_STOP")
    return _asked or (file is not None and Path(file).exists())


def mark_saved(saved: bool = True) -> None:
    """Tell the batch script that this start has got further, so that it is worth another after a crash; or not."""
    if file := os.environ.get("MODELSOUPS_SAVED"):
        Path(file).touch() if saved else Path(file).unlink(missing_ok=True)


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """Join the other ranks, on this process's GPU if there is one; meanwhile SIGTERM asks to stop."""
    global _asked
    _asked = False
    rank, world, local, here = (int(os.environ.get(k, v)) for k, v in TORCHRUN.items())
    before = signal.signal(signal.SIGTERM, _on_term)
    if torch.cuda.is_available():
        torch.cuda.set_device(local % torch.cuda.device_count())
    if world > 1:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Ranks(rank, world, here, listen=True)
        if world > 1:  # after an error the others may never answer: torchrun ends them
            dist.destroy_process_group()
    finally:
        signal.signal(signal.SIGTERM, before)


def _on_term(number: int, frame: FrameType | None) -> None:
    global _asked
    _asked = True
