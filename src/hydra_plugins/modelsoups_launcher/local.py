"""Runs the jobs of a Hydra multirun in parallel on this machine, with hydra/launcher=local."""

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

Place = tuple[dict[str, str], frozenset[int]]  # the variable that selects a job's GPU; its cores


class SideBySideLauncher(Launcher):
    def __init__(self, at_once: int | None = None) -> None:
        self.at_once = at_once
        self.stage: list[str] = []  # empty: all stages

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from modelsoups.cli.commands import STAGES

        self.stage = [config.hydra.job.name] if config.hydra.job.name in STAGES else []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs, even if some fail; in that case, exit with a message that lists them."""
        from modelsoups.cli.commands import fail

        places = self._places()
        free: queue.Queue[Place] = queue.Queue()
        for place in places:
            free.put(place)

        def job(overrides: Sequence[str]) -> int:
            environment, cores = place = free.get()
            try:
                command = [sys.executable, "-P", "-m", "modelsoups", *self.stage, *overrides]
                with subprocess.Popen(command, env=os.environ | environment) as process:
                    if cores:
                        os.sched_setaffinity(process.pid, cores)
                    return process.wait()
            finally:
                free.put(place)

        with ThreadPoolExecutor(len(places)) as pool:
            statuses = list(pool.map(job, job_overrides))
        if bad := [" ".join(o) for o, status in zip(job_overrides, statuses, strict=True) if status]:
            fail(f"{' '.join(self.stage)}: {len(bad)} of {len(statuses)} jobs failed: {'; '.join(bad)}")
        return [JobReturn(overrides=o, status=JobStatus.COMPLETED) for o in job_overrides]

    def _places(self) -> list[Place]:
        """Return the GPU and cores of each parallel job; default: a job per GPU, else per core."""
        import torch

        from modelsoups.workers.processes import worker_count

        count = worker_count(self.at_once)
        mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        shares = [frozenset(mine[i::count] or mine[i % len(mine) :][:1]) if mine else frozenset() for i in range(count)]
        if not torch.cuda.is_available():
            return [({}, share) for share in shares]
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count())))).split(",")
        return [({"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]}, share) for i, share in enumerate(shares)]
