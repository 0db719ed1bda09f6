"""The miniatures' pre-training loop; captions, labels and phrases define model and loss.

Every step has its own random generator, so that a resumed pre-training sees the same batches.
"""

import math
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelsoups.disk import provenance, storage

CARD = "card.json"
Losses = tuple[Tensor, Tensor, Tensor]


@dataclass
class PretrainOptions:
    """The options of one pre-training; a subclass may add some, and have other defaults."""

    out: Path
    seed: int = 0
    steps: int = 7000
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.1
    warmup_steps: int = 300
    threads: int = 2
    checkpoint_every: int = 500
    log_every: int = 100

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"pretrain.steps={self.steps}: expected at least 1")

    def fixed(self) -> dict[str, Any]:
        """Return the options that affect the weights: all but out, checkpoint_every, log_every."""
        free = ("out", "checkpoint_every", "log_every")
        return {key: value for key, value in asdict(self).items() if key not in free}


class Pretraining(ABC):
    """One pre-training run: a model and its optimizer. Subclasses define the model and the loss.

    A new object resumes from the checkpoint in options.out, if there is one.
    """

    options_class: type[PretrainOptions] = PretrainOptions
    steps: int  # steps of the package's weights
    parts: tuple[str, str]  # names of the two numbers that are printed with a step
    examples = "images"  # what a batch consists of, in the card and in messages
    weights: str  # the file name of the finished weights
    flags = ""  # command-line options that select this pre-training

    def __init__(self, options: PretrainOptions) -> None:
        self.options = options
        options.out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(options.seed)
        trained = self.build()
        self.model: Any = trained["model"]
        weights = [weight for part in trained.values() for weight in part.parameters()]
        groups = [
            {"params": [w for w in weights if w.ndim >= 2], "weight_decay": options.weight_decay},
            {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, options.lr, betas=(0.9, 0.98))
        self.saved: dict[str, Any] = {**trained, "optimizer": self.optimizer}
        self.checkpoint = options.out / "checkpoint.pt"
        self.step, self.seconds_before = 0, 0.0
        self._load()

    @abstractmethod
    def build(self) -> dict[str, nn.Module]:
        """Write the model's configuration to options.out, and build the model from it.

        Returns the modules to train, in training mode; "model" is the one to keep.
        """

    @abstractmethod
    def batch_losses(self) -> Losses:
        """Return the loss of this step's batch, and two numbers to print, named in `parts`."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return entries for card.json that describe the final weights, such as accuracies."""

    def after_step(self) -> None:  # noqa: B027 - most models have no bounds
        """Clamp weights to their bounds after an optimizer step; the default does nothing."""

    def report(self) -> None:  # noqa: B027 - not every model is evaluated during training
        """Print the accuracy of the weights just saved; the default prints nothing."""

    def train_step(self) -> tuple[float, float]:
        """Do one optimizer step; return two numbers to print, whose names are in `parts`."""
        options = self.options
        loss, one, other = self.batch_losses()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        lr = options.lr * min(1, (self.step + 1) / options.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * self.step / options.steps))
        self.optimizer.step()
        self.after_step()
        self.step += 1
        return one.item(), other.item()

    def save(self, seconds: float) -> None:
        """Write a checkpoint for resuming; `seconds` is the training time of this process."""
        state = {"options": self.options.fixed(), "step": self.step, "seconds": self.seconds_before + seconds}
        for key, part in self.saved.items():
            state[key] = part.state_dict()
        with storage.atomic(self.checkpoint) as tmp:
            torch.save(state, tmp)

    def _load(self) -> None:
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, weights_only=True)
        if state["options"] != self.options.fixed():
            way_out = "choose another pretrain.out"
            raise ValueError(f"{self.checkpoint} was written with different options; {way_out}")
        for key, part in self.saved.items():
            part.load_state_dict(state[key])
        self.step, self.seconds_before = state["step"], state["seconds"]
        print(f"pretrain: continuing from the checkpoint at step {self.step}", flush=True)

    def write_weights(self) -> None:
        """Write the model's weights to options.out, in float16."""
        state = {k: v.detach().half().contiguous() for k, v in self.model.state_dict().items()}
        storage.save_weights(self.options.out / self.weights, state)

    def train(self) -> float:
        """Train the remaining steps; return the seconds of all steps, before and after resuming."""
        options, first, start = self.options, self.step, time.monotonic()
        while self.step < options.steps:
            numbers = self.train_step()
            seconds = time.monotonic() - start
            finished = self.step == options.steps
            if self.step % options.log_every == 0 or finished:
                self._log(numbers, seconds / (self.step - first))
            if self.step % options.checkpoint_every == 0 and not finished:
                self.save(seconds)
                self.write_weights()
                self.report()
        self.write_weights()
        return self.seconds_before + time.monotonic() - start

    def _log(self, numbers: tuple[float, float], seconds_per_step: float) -> None:
        options = self.options
        left = seconds_per_step * (options.steps - self.step) / 60
        shown = "  ".join(f"{name} {x:.3f}" for name, x in zip(self.parts, numbers, strict=True))
        speed = f"{options.batch_size / seconds_per_step:.0f} {self.examples}/s  {left:.1f} min left"
        print(f"pretrain: step {self.step}/{options.steps}  {shown}  {speed}", flush=True)


def pretrain(kind: type[Pretraining], options: PretrainOptions) -> dict[str, Any]:
    """Pre-train or resume in options.out; write weights and card.json, and return the latter."""
    torch.set_num_threads(options.threads)
    training = kind(options)
    seconds = training.train()
    keys = f"pretrain.seed={options.seed} pretrain.steps={options.steps}"
    card = {
        "made with": f"modelsoups pretrain {kind.flags}{keys}",
        "options": training.options.fixed(),
        training.examples: options.steps * options.batch_size,
        "seconds": round(seconds),
        **training.facts(),
        "provenance": provenance.record(),
    }
    storage.write_json(options.out / CARD, card)
    print(f"pretrain: done in {seconds / 60:.1f} min", flush=True)
    return card
