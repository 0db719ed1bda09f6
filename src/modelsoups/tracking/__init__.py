"""Weights & Biases beside the work: a follower process reads what the stages write, and logs it.

The files of a run folder are the truth; no stage knows of W&B, so it can neither slow nor fail one. `following` starts
the follower (`tracking.follower`), a process of lowest priority, and waits for it a limited time in the end.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelsoups.config.schema import Config

STAGES = ("finetune", "soup", "report")  # that leave something to log
WAIT = {"online": 60.0, "offline": 300.0}  # seconds for what is left: a server may be away, a disk is only slow
HURRY = 10.0  # the same when a command is stopped or fails: on a cluster its time is running out


@contextlib.contextmanager
def following(cfg: Config, stages: Sequence[str]) -> Iterator[None]:
    """Log to W&B what the stages within make, as cfg.wandb says; never an exception, at most a line of warning."""
    follower = _start(cfg) if set(stages) & set(STAGES) and os.environ.get("RANK", "0") == "0" else None
    wait = HURRY
    try:
        yield
        wait = WAIT["offline" if cfg.wandb == "offline" else "online"]
    finally:
        if follower is not None:
            _end(cfg, follower, wait)


def _start(cfg: Config) -> subprocess.Popen[str] | None:
    mode = os.environ.get("WANDB_MODE", "auto") if cfg.wandb == "auto" else cfg.wandb
    if mode in ("disabled", "dryrun"):
        return None
    if importlib.util.find_spec("wandb") is None:
        if cfg.wandb != "auto":
            warn(f"wandb={cfg.wandb}, but wandb is not installed (pip install modelsoups[wandb]); nothing is logged")
        return None
    folder = cfg.run.wandb
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "follower.log", "a", encoding="utf-8") as log:
            follower = subprocess.Popen(
                [sys.executable, "-m", "modelsoups.tracking.follower"],
                stdin=subprocess.PIPE, stdout=2, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip
        assert follower.stdin is not None
        follower.stdin.write(json.dumps({"mode": mode, "config": asdict(cfg)}, default=str) + "\n")
        follower.stdin.flush()
    except OSError as error:
        warn(f"not logging ({error}); everything else goes on")
        return None
    return follower


def _end(cfg: Config, follower: subprocess.Popen[str], wait: float) -> None:
    """Let the follower log what is left; one that takes too long is left behind by ending it: its files are whole."""
    assert follower.stdin is not None
    with contextlib.suppress(OSError):
        follower.stdin.close()
    try:
        if follower.wait(wait):
            warn(f"the follower failed; everything else is complete (trace: {cfg.run.wandb / 'follower.log'})")
    except subprocess.TimeoutExpired:
        follower.kill()
        follower.wait()
        warn(f"not done after {wait:.0f} s; what is missing there goes with the next command, or `wandb sync`")
    except KeyboardInterrupt:
        follower.kill()


def warn(message: str) -> None:
    print(f"modelsoups: W&B: {message}", file=sys.stderr, flush=True)
