"""A pre-training under way: its options, its steps and its checkpoint; `captions` and `labels` say what is learned.

Every step draws from a generator of its own, so that a run which resumes from its checkpoint sees the same batches.

Legend: B images of a batch, C colours, H height, W width, N names.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from modelsoups.disk import paths, storage
from modelsoups.miniature import sets
from modelsoups.miniature.pretraining.corpus import Corpus
from modelsoups.miniature.render import Look, render

EASY = Look(scale=(0.75, 0.98), turn=5, shift=0.04, rich=0.5, white=0.25, dark=0.5, inverted=0.35, contrast=(0.5, 1.0),
            occluded=0, blur=0, noise=(0, 0.03))  # fmt: skip
HARD = Look(scale=(0.45, 0.98), turn=30, perspective=0.2, shift=0.14, rich=0.5, white=0.25, dark=0.5, inverted=0.35,
            contrast=(0.2, 1.0), stripes=0.25, clutter=0.3, occluded=0.25, blur=0.3, noise=(0, 0.18))  # fmt: skip


@dataclass
class PretrainOptions:
    """How to pre-train; the defaults are those of the shipped weights (see card.json)."""

    out: Path
    seed: int = 0
    steps: int = 7000
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.1
    warmup_steps: int = 300
    shared_names: float = 0.7  # share of a batch whose name two or more designers drew
    auxiliary: float = 0.5  # weight of the name-classification loss
    threads: int = 2
    checkpoint_every: int = 500
    log_every: int = 100

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"pretrain.steps={self.steps}: expected at least 1")


class Run(ABC):
    """Model, head for names and optimizer, and the step they have come to."""

    parts: tuple[str, str]  # of the loss, as they are printed
    weights: str  # the file that write_weights makes

    def __init__(self, options: PretrainOptions, corpus: Corpus) -> None:
        self.options, self.corpus = options, corpus
        torch.manual_seed(options.seed)
        self.model, features, self.mean, self.std = self.built()
        self.names = nn.Linear(features, int(corpus.shared_name_of.max()) + 1, bias=False)
        weights = [*self.model.parameters(), *self.names.parameters()]
        groups = [
            {"params": [p for p in weights if p.ndim >= 2], "weight_decay": options.weight_decay},
            {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, options.lr, betas=(0.9, 0.98))
        self.step, self.seconds_before = 0, 0.0
        self._load()

    @abstractmethod
    def built(self) -> tuple[Any, int, Sequence[float], Sequence[float]]:
        """The model in training mode, the size of its image features, and its images' mean and standard deviation."""

    @abstractmethod
    def losses(self, images_BCHW: Tensor, places_B: Tensor, g: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """What a step descends, and the two numbers that are printed of it."""

    def train_step(self) -> tuple[float, float]:
        """One step; the two parts of its loss."""
        o, c = self.options, self.corpus
        g = sets.generator(f"pretrain {o.seed} step {self.step}")
        places_B = self._batch(g)
        look = EASY.towards(HARD, min(1.0, 2 * self.step / o.steps))
        images_BCHW = render(c.masks_GSS[places_B], look, g, c.masks_GSS)
        whole, one, other = self.losses(normalise(images_BCHW, self.mean, self.std), places_B, g)
        self.optimizer.zero_grad()
        whole.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        lr = o.lr * min(1, (self.step + 1) / o.warmup_steps) * 0.5 * (1 + math.cos(math.pi * self.step / o.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.bounded()
        self.step += 1
        return one.item(), other.item()

    def bounded(self) -> None:  # noqa: B027 - most models bound nothing
        """Bring weights back into their bounds after a step, where they have some."""

    def _batch(self, g: Generator) -> Tensor:
        shared = round(self.options.batch_size * self.options.shared_names)
        parts = ((self.corpus.shared, shared), (self.corpus.single, self.options.batch_size - shared))
        return torch.cat([places[torch.randperm(len(places), generator=g)[:count]] for places, count in parts])

    @property
    def _checkpoint(self) -> Path:
        return self.options.out / paths.CHECKPOINT

    def save(self, seconds: float) -> None:
        state = {
            "options": fixed(self.options),
            "step": self.step,
            "seconds": self.seconds_before + seconds,
            "model": self.model.state_dict(),
            "names": self.names.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with storage.atomic(self._checkpoint) as tmp:
            torch.save(state, tmp)

    def _load(self) -> None:
        if not self._checkpoint.exists():
            return
        state = torch.load(self._checkpoint, weights_only=True)
        if state["options"] != fixed(self.options):
            raise ValueError(f"{self._checkpoint} was made with other options; remove it or choose another `out`")
        self.model.load_state_dict(state["model"])
        self.names.load_state_dict(state["names"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds_before = state["step"], state["seconds"]
        print(f"pretrain: going on from step {self.step}", flush=True)

    def write_weights(self, folder: Path) -> None:
        state = {k: v.detach().half().contiguous() for k, v in self.model.state_dict().items()}
        storage.save_weights(folder / self.weights, state)


def train(run: Run, on_checkpoint: Callable[[], None] = lambda: None) -> float:
    """The steps that are left, with a line and a checkpoint now and then; the seconds of all steps."""
    options, start, begun = run.options, run.step, time.monotonic()
    while run.step < options.steps:
        losses = run.train_step()
        done = run.step
        if done % options.log_every == 0 or done == options.steps:
            each = (time.monotonic() - begun) / (done - start)
            left = each * (options.steps - done) / 60
            shown = "  ".join(f"{name} {value:.3f}" for name, value in zip(run.parts, losses, strict=True))
            print(f"pretrain: step {done}/{options.steps}  {shown}  "
                  f"{options.batch_size / each:.0f} images/s  {left:.1f} min left", flush=True)  # fmt: skip
        if done % options.checkpoint_every == 0 and done < options.steps:
            run.save(time.monotonic() - begun)
            run.write_weights(options.out)
            on_checkpoint()
    run.write_weights(options.out)
    return run.seconds_before + time.monotonic() - begun


def fixed(options: PretrainOptions) -> dict[str, Any]:
    """The options that the result depends on."""
    free = ("out", "checkpoint_every", "log_every")
    return {k: v for k, v in asdict(options).items() if k not in free}


def normalise(images_BCHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    mean_C11, std_C11 = (torch.tensor(x).view(-1, 1, 1) for x in (mean, std))
    return (images_BCHW.float() / 255 - mean_C11) / std_C11
