"""hydra/launcher=local: the jobs of a multirun side by side on this machine, a process and a GPU (or core) each."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SideBySideLauncher(Launcher):
    def __init__(self, at_once: int | None = None) -> None:
        self.at_once = at_once
        self.stage: list[str] = []  # none: all of them

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from modelsoups.cli import STAGES

        self.stage = [config.hydra.job.name] if config.hydra.job.name in STAGES else []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run every job; the others go on when one fails, and then it is named in one line, exit status 1."""
        from modelsoups.cli import fail

        places = self._places()
        free: queue.Queue[dict[str, str]] = queue.Queue()
        for place in places:
            free.put(place)

        def job(overrides: Sequence[str]) -> int:
            place = free.get()
            try:
                command = [sys.executable, "-m", "modelsoups", *self.stage, *overrides]
                return subprocess.run(command, env=os.environ | place).returncode
            finally:
                free.put(place)

        with ThreadPoolExecutor(len(places)) as pool:
            statuses = list(pool.map(job, job_overrides))
        if bad := [" ".join(o) for o, status in zip(job_overrides, statuses, strict=True) if status]:
            fail(f"{' '.join(self.stage)}: {len(bad)} of {len(statuses)} jobs failed: {'; '.join(bad)}")
        return [JobReturn(overrides=o, status=JobStatus.COMPLETED) for o in job_overrides]

    def _places(self) -> list[dict[str, str]]:
        """What each job that runs at the same time finds in its environment: a GPU of its own, if there are any."""
        import torch

        from modelsoups.parallel import cores

        count = self.at_once or torch.cuda.device_count() or cores()
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count())))).split(",")
        if not torch.cuda.is_available():
            return [{} for _ in range(count)]
        return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(count)]
