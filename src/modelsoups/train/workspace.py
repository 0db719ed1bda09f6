"""What a training run has beside its model and data: its folder, lock, processes, and the hold-out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelsoups.disk.lock import Lock
from modelsoups.train.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Workspace:
    """The folder of one training run, its lock (held by rank 0), and the processes that train."""

    folder: Path
    made_from: str  # fingerprint of the run's inputs; a checkpoint with other inputs is refused
    ranks: Ranks = ALONE
    lock: Lock | None = None
    side_by_side: int = 1  # runs and ranks that share the cores of this machine
    shared: Path | None = None  # file of decoded images that runs on this machine share (finetune.share)
    holdout: Any = None  # the prepared hold-out, if the run is evaluated along the way; never a test set

    def check_lock(self) -> None:
        """Raise Held if another process has taken over the folder; called before each write."""
        if self.lock is not None:
            self.lock.check()
