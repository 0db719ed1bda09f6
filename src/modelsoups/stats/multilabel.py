"""Scores for data sets with several correct classes per image (ImageNet ReaL, multilabel).

Legend: N images, C classes, A the largest number of answers of an image.
"""

import torch
from torch import Tensor


def correct(logits_NC: Tensor, answers_NA: Tensor) -> Tensor:
    """Return correct_N (bool): whether the top class is among the answers, padded with -1."""
    if len(logits_NC) != len(answers_NA):
        raise ValueError(f"relabelled: logits of {len(logits_NC):,} images, answers of {len(answers_NA):,}")
    return (logits_NC.argmax(dim=1, keepdim=True) == answers_NA).any(dim=1)


def weights(classes_N: Tensor) -> Tensor:
    """Return weight_N (float64, sum 1), each image's weight in an accuracy averaged over classes.

    Multilabel accuracy (Shankar et al. 2020, section 3) weights classes equally, whatever their size.
    """
    if not len(classes_N):
        raise ValueError("accuracy: no images")
    images_C = torch.bincount(classes_N)
    return 1.0 / (images_C[classes_N].double() * (images_C > 0).sum())
