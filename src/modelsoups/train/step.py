"""The pure pieces of a training step: schedules, targets, losses, mixup, CutMix, order of the data.

Legend: B images of a batch, C classes, N images of the training set, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from modelsoups.data.order import seeded
from modelsoups.stats.scores import ensemble


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


# Share of the peak learning rate, by the share of the run (or of its epoch) that is done. L.1 tries constant, cosine,
# and cosine with restarts (SGDR, Loshchilov and Hutter 2016), here with one cycle an epoch, so that what SWA averages
# after each epoch is the end of a cycle; linear decay is BERT's (J.2.4).
SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "cosine": lambda run, epoch: _cosine(run),
    "cosine_restarts": lambda run, epoch: _cosine(epoch),
    "linear": lambda run, epoch: 1 - run,
    "constant": lambda run, epoch: 1.0,
}


def lr_factor(step: int, total: int, warmup: int, schedule: str, per_epoch: int = 1) -> float:
    """Share of the peak learning rate at a step, counted from 0: linear warm-up, then one of SCHEDULES.

    Warm-up lasts `warmup` steps, but at most a tenth of the run, so that short runs train at all. per_epoch is the
    number of steps of an epoch, which matters to cosine_restarts alone.
    """
    warmup = min(warmup, total // 10)
    if step < warmup:
        return (step + 1) / warmup
    return SCHEDULES[schedule]((step - warmup) / (total - warmup), step % per_epoch / per_epoch)


# ---- targets and losses ----


def soft_targets(labels_B: Tensor, classes: int, smoothing: float) -> Tensor:
    """targets_BC: 1 - smoothing on the label, and smoothing spread evenly over all classes."""
    return F.one_hot(labels_B, classes).float() * (1 - smoothing) + smoothing / classes


def softmax_loss(logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
    """Cross-entropy with soft targets, mean over the batch."""
    return F.cross_entropy(logits_BC, targets_BC)


def binary_loss(logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
    """Binary cross-entropy of every class, summed over classes, mean over the batch (ViT-G, J.2.3)."""
    return F.binary_cross_entropy_with_logits(logits_BC, targets_BC, reduction="sum") / len(logits_BC)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"softmax": softmax_loss, "binary": binary_loss}


def ensemble_targets(logits: Sequence[Tensor], loss: str) -> Tensor:
    """targets_BC of distillation: the probabilities of the teachers' ensemble, which averages logits_BC.

    Hinton et al. 2014, equation 4 at temperature 1 with soft targets alone, on the student's own augmented (and mixed)
    images (appendix L.1; Beyer et al. 2021, "consistent"). The paper gives neither temperature nor a share of labels.
    """
    mean_BC = ensemble(logits).float()
    return mean_BC.sigmoid() if loss == "binary" else mean_BC.softmax(dim=1)


@dataclass
class Watch:
    """Tells a loss that diverges from one that has a spike: see `reason`.

    chance: the loss of a model that knows nothing, all logits equal (ln C for softmax). patience: in steps.
    """

    chance: float
    patience: int
    first: float | None = None  # the loss that was seen first
    since: int | None = None  # the step from which on it has been too high

    def reason(self, step: int, loss: float) -> str | None:
        """Why the run has failed, if it has, told the loss of some steps in order.

        It is not finite; or for `patience` steps it has been above TOO_HIGH times chance, and TOO_HIGH times where the
        run began: a recipe that trains at all is far below chance, and one that forgets everything comes to rest there.
        """
        if not math.isfinite(loss):
            return f"the loss is {loss} at step {step}"
        self.first = loss if self.first is None else self.first
        limit = TOO_HIGH * max(self.chance, self.first)
        if loss <= limit:
            self.since = None
            return None
        self.since = step if self.since is None else self.since
        if step - self.since < self.patience:
            return None
        return f"the loss diverged: above {limit:.4g} since step {self.since}, and {loss:.4g} at step {step}"


TOO_HIGH = 3.0


def chance_loss(loss: str, classes: int) -> float:
    """The loss of a model whose logits are all equal, one label an image: ln C (softmax) or C ln 2 (binary)."""
    targets_1C = F.one_hot(torch.tensor([0]), classes).float()
    return float(LOSSES[loss](torch.zeros(1, classes), targets_1C))


# ---- mixing two images ----


def mixup(images_BCHW: Tensor, targets_BC: Tensor, lam: float) -> tuple[Tensor, Tensor]:
    """lam of each image and target, 1 - lam of the one as far from the other end of the batch (as timm pairs them)."""
    return (
        lam * images_BCHW + (1 - lam) * images_BCHW.flip(0),
        lam * targets_BC + (1 - lam) * targets_BC.flip(0),
    )


def cutmix(images_BCHW: Tensor, targets_BC: Tensor, lam: float, *key: object) -> tuple[Tensor, Tensor]:
    """A box of the image from the other end of the batch, of 1 - lam of the area (Yun et al. 2019).

    The box's centre is drawn from `key` and the box cut at the borders; targets are mixed by the area that is left of
    it, as timm does.
    """
    height, width = images_BCHW.shape[-2:]
    side = math.sqrt(1 - lam)
    half_h, half_w = int(height * side) // 2, int(width * side) // 2
    generator = seeded(lam, *key)
    y, x = (int(torch.randint(size, (), generator=generator)) for size in (height, width))
    top, bottom, left, right = max(0, y - half_h), min(height, y + half_h), max(0, x - half_w), min(width, x + half_w)
    mixed_BCHW = images_BCHW.clone()
    mixed_BCHW[..., top:bottom, left:right] = images_BCHW.flip(0)[..., top:bottom, left:right]
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed_BCHW, kept * targets_BC + (1 - kept) * targets_BC.flip(0)


def mixup_lambda(alpha: float, *key: object) -> float:
    """One draw from Beta(alpha, alpha) that is a function of alpha and key alone."""
    generator = seeded(alpha, *key)
    one, two = (torch._standard_gamma(torch.tensor(alpha, dtype=torch.float64), generator=generator) for _ in range(2))
    total = float(one + two)
    return float(one) / total if total > 0 else 0.5  # both underflow for a tiny alpha


# ---- randomness ----
