"""What W&B's files hold, as its own command reads them."""

import json
import subprocess
import sys
from pathlib import Path


def segments(folder, run_id="*"):
    """The files of an offline run, oldest first; `folder` is where W&B keeps its runs."""
    return sorted(folder.glob(f"wandb/*run-*-{run_id}/run-{run_id}.wandb"))


def records(path):
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(path)]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def history(path):
    """The logged rows, in order, each with its `_step`."""
    return [record["history"]["item"] for record in records(path) if record["type"] == "history"]
