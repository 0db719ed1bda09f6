"""Logging to Weights & Biases by a separate process (the follower), which reads a run's files.

No stage calls W&B, so W&B can neither slow a stage down nor make it fail.
"""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

STAGES = ("finetune", "soup", "report")  # those whose files are logged
WAIT = {"online": 60.0, "offline": 300.0}  # seconds for the follower to log the rest and exit
MODES = {"dryrun": "offline", "run": "online"}  # W&B's older words for its modes
PROJECT = "modelsoups"  # unless track.project or WANDB_PROJECT is set
FORBIDDEN = "/\\#?%:"  # characters that W&B refuses in the name of a project
HURRY = 10.0  # the same after a command fails or is stopped, when a cluster leaves little time


@contextlib.contextmanager
def following(mode: str, folder: Path, settings: Mapping[str, Any], stages: Sequence[str]) -> Iterator[None]:
    """Log to W&B, inside the with block, what these stages write; a failure only prints a warning.

    mode: value of the key `wandb`. folder: for W&B's files. settings: configuration as nested
    dicts.
    """
    logs = set(stages) & set(STAGES) and os.environ.get("RANK", "0") == "0"
    follower = _start(mode, folder, settings) if logs else None
    wait = HURRY
    try:
        yield
        wait = WAIT["offline" if mode == "offline" else "online"]
    finally:
        if follower is not None:
            _end(follower, wait, folder)


def project(track: Mapping[str, Any]) -> str:
    """Return the name of the W&B project: track.project, else WANDB_PROJECT, else PROJECT.

    W&B itself replaces an entity that is not set by WANDB_ENTITY, or by the login's default.
    """
    return str(track["project"] or os.environ.get("WANDB_PROJECT") or PROJECT)


def group(settings: Mapping[str, Any]) -> str:
    """Return the W&B group of a sweep's runs: WANDB_RUN_GROUP, or else the run's name."""
    return os.environ.get("WANDB_RUN_GROUP") or str(settings["name"])


def _start(mode: str, folder: Path, settings: Mapping[str, Any]) -> subprocess.Popen[str] | None:
    chosen = os.environ.get("WANDB_MODE", "auto") if mode == "auto" else mode
    chosen = MODES.get(chosen, chosen)
    if chosen == "disabled":
        return None
    name = project(settings["track"])
    if refused := set(FORBIDDEN) & set(name):
        way_out = f"set track.project or WANDB_PROJECT to a name without {' '.join(sorted(refused))}"
        warn(f"W&B accepts no project named {name!r}; nothing is logged; {way_out}")
        return None
    if importlib.util.find_spec("wandb") is None:
        if mode != "auto":
            warn(f"wandb={mode}, but wandb is not installed (pip install modelsoups[wandb]); nothing is logged")
        return None
    command = [sys.executable, "-P", "-m", "modelsoups.tracking.follower"]
    streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": 2, "text": True}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "follower.log", "a", encoding="utf-8") as log:
            follower = subprocess.Popen(command, stderr=log, start_new_session=True, **streams)
        assert follower.stdin is not None
        follower.stdin.write(json.dumps({"mode": chosen, "settings": settings}, default=str) + "\n")
        follower.stdin.flush()
    except OSError as error:
        warn(f"not logging, since the logging process failed to start ({error}); the command continues")
        return None
    return follower


def _end(follower: subprocess.Popen[str], wait: float, folder: Path) -> None:
    """Give the follower `wait` seconds to log the rest, then kill it; W&B's files stay usable."""
    assert follower.stdin is not None
    with contextlib.suppress(OSError):
        follower.stdin.close()
    try:
        if follower.wait(wait):
            warn(f"the logging process failed, see {folder / 'follower.log'}; the command itself is complete")
    except subprocess.TimeoutExpired:
        follower.kill()
        follower.wait()
        warn(
            f"logging was not finished after {wait:.0f} s; the next command logs the rest, and `wandb sync` uploads it"
        )
    except KeyboardInterrupt:
        follower.kill()


def warn(message: str) -> None:
    print(f"modelsoups: W&B: {message}", file=sys.stderr, flush=True)
