"""Targets and losses of image classification, mixup and CutMix (appendix J.2.1).

Shape letters: B images of a batch, C classes (in images: channels), H height, W width.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from modelsoups.data.order import seeded
from modelsoups.recipes.recipe import Recipe
from modelsoups.stats.scores import ensemble


def soft_targets(labels_B: Tensor, classes: int, smoothing: float) -> Tensor:
    """Return smoothed targets, (B, C): (1 - smoothing) x one-hot labels + smoothing / classes."""
    return F.one_hot(labels_B, classes).float() * (1 - smoothing) + smoothing / classes


def binary_loss(logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
    """Return the binary cross-entropy, summed over classes and averaged over the batch (J.2.3)."""
    return F.binary_cross_entropy_with_logits(logits_BC, targets_BC, reduction="sum") / len(logits_BC)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"softmax": F.cross_entropy, "binary": binary_loss}


def ensemble_targets(logits: Sequence[Tensor], loss: str) -> Tensor:
    """Return distillation targets, (B, C): the probabilities of the teachers' mean logits.

    Hinton et al. 2014, equation 4 (appendix L.1). Teachers see the student's augmented, mixed
    images. The paper gives no temperature and no weight of the true labels; here they are 1 and 0.
    """
    mean_BC = ensemble(logits).float()
    return mean_BC.sigmoid() if loss == "binary" else mean_BC.softmax(dim=1)


def chance_loss(loss: str, classes: int) -> float:
    """Return the loss of equal logits for C classes: ln C for "softmax", C ln 2 for "binary"."""
    targets_1C = F.one_hot(torch.tensor([0]), classes).float()
    return float(LOSSES[loss](torch.zeros(1, classes), targets_1C))


def mixup(images_BCHW: Tensor, targets_BC: Tensor, lam: float) -> tuple[Tensor, Tensor]:
    """Return lam x batch + (1 - lam) x reversed batch, for the images and for the targets."""
    mixed_BCHW = lam * images_BCHW + (1 - lam) * images_BCHW.flip(0)
    return mixed_BCHW, lam * targets_BC + (1 - lam) * targets_BC.flip(0)


def cutmix(images_BCHW: Tensor, targets_BC: Tensor, lam: float, *key: object) -> tuple[Tensor, Tensor]:
    """Paste a box from the reversed batch into the images; return images and mixed targets.

    Yun et al. 2019. The box has 1 - lam of the area; its centre is random, seeded by lam and `key`;
    it is clipped at the borders. As in timm, targets are mixed by the area of the clipped box.
    """
    height, width = images_BCHW.shape[-2:]
    side = math.sqrt(1 - lam)
    half_h, half_w = int(height * side) // 2, int(width * side) // 2
    generator = seeded(lam, *key)
    y, x = (int(torch.randint(size, (), generator=generator)) for size in (height, width))
    top, bottom = max(0, y - half_h), min(height, y + half_h)
    left, right = max(0, x - half_w), min(width, x + half_w)
    mixed_BCHW = images_BCHW.clone()
    mixed_BCHW[..., top:bottom, left:right] = images_BCHW.flip(0)[..., top:bottom, left:right]
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed_BCHW, kept * targets_BC + (1 - kept) * targets_BC.flip(0)


def mixup_lambda(alpha: float, *key: object) -> float:
    """Return a random number from Beta(alpha, alpha), seeded by alpha and `key`."""
    generator = seeded(alpha, *key)
    one, two = (torch._standard_gamma(torch.tensor(alpha, dtype=torch.float64), generator=generator) for _ in range(2))
    total = float(one + two)
    return float(one) / total if total > 0 else 0.5  # both underflow for a tiny alpha


def mix_batch(images_BCHW: Tensor, targets_BC: Tensor, recipe: Recipe, step: int) -> tuple[Tensor, Tensor]:
    """Apply the recipe's mixup or CutMix to images and targets; if both are set, one at random."""
    seed, cut = recipe.seed, recipe.cutmix > 0
    if cut and recipe.mixup > 0:
        cut = bool(torch.rand((), generator=seeded(seed, "cutmix", step)) < 0.5)
    if cut:
        return cutmix(images_BCHW, targets_BC, mixup_lambda(recipe.cutmix, seed, step), seed, step)
    if recipe.mixup > 0:
        return mixup(images_BCHW, targets_BC, mixup_lambda(recipe.mixup, seed, step))
    return images_BCHW, targets_BC
