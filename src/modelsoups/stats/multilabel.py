"""Scoring against relabelled ImageNet, where an image has several right answers (ReaL, multilabel).

Legend: N images, C classes, A answers of an image at most.
"""

from __future__ import annotations

import torch
from torch import Tensor


def correct(logits_NC: Tensor, answers_NA: Tensor) -> Tensor:
    """correct_N, bool: whether the top class is one of the image's answers; rows are filled up with -1."""
    if len(logits_NC) != len(answers_NA):
        raise ValueError(f"relabelled: logits of {len(logits_NC):,} images, answers of {len(answers_NA):,}")
    return (logits_NC.argmax(dim=1, keepdim=True) == answers_NA).any(dim=1)


def weights(classes_N: Tensor) -> Tensor:
    """weight_N, float64, of each image in an accuracy that is averaged over the original classes; they add up to 1.

    For multilabel accuracy (Shankar et al. 2020, section 3): dropping problematic images left classes of different
    sizes.
    """
    if not len(classes_N):
        raise ValueError("accuracy: no images")
    images_C = torch.bincount(classes_N)
    return 1.0 / (images_C[classes_N].double() * (images_C > 0).sum())
