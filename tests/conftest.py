"""What several test modules share: the pico data, rendered once."""

import json
import os
import sys
from pathlib import Path

if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):  # each process of a test would compile PyTorch anew: 12 seconds
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = str(Path(__file__).parents[1] / ".pytest_cache/bytecode")
    sys.dont_write_bytecode = False

import pico_pools
import pytest
import torch
from pico import make_data

from modelsoups.analyses.bench import Bench
from modelsoups.cli import commands, pipeline
from modelsoups.config.compose import load
from modelsoups.experiment.experiment import Experiment

os.environ.setdefault("WANDB_MODE", "disabled")  # for stages whose test is not about W&B
torch.set_num_threads(1)  # as the workers do: results depend on it


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """The beginning of every set of the miniature, as `prepare` leaves it."""
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def analysed(tmp_path_factory, data):
    """A pico run, its pools and every analysis of them: configuration, arguments and folder, in which `load` finds
    the experiment.
    """
    home = tmp_path_factory.mktemp("analyse")
    args = pico_pools.options(home, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        cfg = load([*args, "analyse.in_pipeline=true"])
        pipeline.run_stages(commands.modules_of(["heads", "sweep", "finetune", "evaluate", "analyse"]), cfg)
    return cfg, args, home


@pytest.fixture(scope="session")
def bench(analysed):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(analysed[2])
        return Bench(Experiment(analysed[0]))


@pytest.fixture(scope="session")
def rows_of(analysed):
    """The rows of an analysis by its name, from its data file."""

    def read(name):
        lines = (analysed[0].run.analyses / f"{name}.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    return read
