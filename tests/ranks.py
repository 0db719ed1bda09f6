"""Processes that fine-tune together, forked from the test's own: without SLURM and torchrun, and without their time."""

import os
import socket
import warnings

from modelsoups.experiment.experiment import Experiment
from modelsoups.stages import finetune


def fork(act, **environment):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons: of forking; nothing else runs here
        child = os.fork()
    if child == 0:
        status = 1
        try:
            os.environ.update({k: str(v) for k, v in environment.items()})
            act()
            status = 0
        except SystemExit as error:
            status = error.code
        finally:
            os._exit(status)
    return child


def codes(children):
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def train_on(cfg, world, act=None):
    """Exit statuses of ranks that fine-tune together, as torchrun starts them on nodes of two."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    act = act or (lambda: finetune.run(Experiment(cfg)))
    return codes([fork(act, RANK=r, LOCAL_RANK=r % 2, **common) for r in range(world)])
