"""A pico version of the miniature's data: a few rendered images of each set, in the real layout.

The whole pipeline then runs in seconds on real input: the same stages, the same model, fewer images.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelsoups.config.compose import load
from modelsoups.data import shards
from modelsoups.experiment.experiment import Experiment
from modelsoups.miniature import sets
from modelsoups.miniature.images import render_set
from modelsoups.train.trainer import Trainer

IMAGES = {"train": 320, "holdout": 128}  # every other set has 96
SMALL = [
    "sweep.search=pico",
    "finetune.checkpoint_every=2",
    "finetune.log_every=1",
    "soup.orders=2",
    "soup.learned_epochs=1",
    "evaluate.wise_ft=[0.5]",
]
SEARCH = """
kind: random
count: 3
parameters:
  lr: {log10_uniform: [-3.5, -2.8], strata: 3}
  weight_decay: {constant: 0.05}
  label_smoothing: {choice: [0.0, 0.1]}
  epochs: {integer: [1, 2]}
  mixup: {choice: [0.0, 0.5]}
  aug: {choice: [minimal, rand-m5-n1]}
"""
BASE = {"lr": 5e-4, "weight_decay": 0.05, "epochs": 2, "label_smoothing": 0.1, "mixup": 0.0, "aug": "minimal",
        "seed": 3, "batch_size": 64, "warmup_steps": 1, "clip": 1.0, "min_crop": 0.9, "flip": 0.0}  # fmt: skip


def make_data(folder: Path) -> Path:
    """The beginning of every set of the miniature; `prepare` takes them for complete."""
    cfg = load([f"data.dir={folder}"])
    for name in sets.SETS:
        samples = first(name, IMAGES.get(name, 96))
        entry = shards.write_shard(folder / name / f"{name}-000000.tar", samples)
        shards.finish_set(folder / name, Experiment(cfg).sets.inputs(name), [entry], Experiment(cfg).sets.facts(name))
    return folder


def first(name: str, count: int) -> list[shards.Sample]:
    """The set's first images: their order is shuffled, so that every class has about as many."""
    images = itertools.islice(render_set(name, 0), count)
    return [(key, shards.encode_png(image), "png", label) for key, image, label in images]


def arguments(home: Path, data: Path) -> list[str]:
    (home / "pico.yaml").write_text(SEARCH)
    return [a.replace("=pico", f"={home / 'pico.yaml'}") for a in SMALL] + [f"data.dir={data}"]


def modelsoups(home: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modelsoups", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=home, timeout=600)


def kill_when(home: Path, args: list[str], there: str, after: float = 0.0) -> bool:
    """Start the command, kill -9 its whole process group once a path matching `there` exists; False if it ended."""
    command = [sys.executable, "-m", "modelsoups", *args]
    with subprocess.Popen(
        command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        while process.poll() is None:
            if any(home.glob(there)):
                time.sleep(after)
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return True
            time.sleep(0.005)
    return False


class Stop(Exception):
    pass


@contextlib.contextmanager
def broken_off(monkeypatch: pytest.MonkeyPatch, at: int) -> Iterator[None]:
    """Within, training ends with an exception when it has done `at` steps, as it must."""
    update = Trainer.update

    def broken(self, batch):
        if self.step == at:
            raise Stop
        return update(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", broken)
        with pytest.raises(Stop):
            yield
