"""What several test modules share: the pico data, rendered once."""

import os
import sys
from pathlib import Path

if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):  # each process of a test would compile PyTorch anew: 12 seconds
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = str(Path(__file__).parents[1] / ".pytest_cache/bytecode")
    sys.dont_write_bytecode = False

import pytest
import torch
from pico import make_data

os.environ.setdefault("WANDB_MODE", "disabled")  # for stages whose test is not about W&B
torch.set_num_threads(1)  # as the workers do: results depend on it


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """The beginning of every set of the miniature, as `prepare` leaves it."""
    return make_data(tmp_path_factory.mktemp("data"))
