"""Scores for data sets with several correct classes per image (ImageNet ReaL, multilabel).

Legend: N images, C classes, A the largest number of correct classes of an image.
"""

import torch
from torch import Tensor


def correct(logits_NC: Tensor, answers_NA: Tensor) -> Tensor:
    """Return whether each image's top class is among its correct classes (padded with -1)."""
    if len(logits_NC) != len(answers_NA):
        raise ValueError(f"logits of {len(logits_NC):,} images, but correct classes of {len(answers_NA):,}")
    return (logits_NC.argmax(dim=1, keepdim=True) == answers_NA).any(dim=1)


def merged(logits_NC: Tensor, answers_NA: Tensor) -> Tensor:
    """Return logits of which an image's first answer has the largest of all its answers, and the others the lowest.

    So the top class is the first answer if that of `logits_NC` is any of the answers, which are padded with -1.
    """
    none_NA = answers_NA < 0
    place_NA = torch.where(none_NA, answers_NA[:, :1], answers_NA)
    best_N1 = logits_NC.gather(1, place_NA).amax(dim=1, keepdim=True)
    lowest_NA = logits_NC.amin(dim=1, keepdim=True).expand_as(place_NA)
    return logits_NC.scatter(1, place_NA, lowest_NA).scatter(1, answers_NA[:, :1], best_N1)


def weights(classes_N: Tensor) -> Tensor:
    """Return image weights (sum 1) that give each class the same total weight in an accuracy.

    Multilabel accuracy is defined with these weights (Shankar et al. 2020, section 3).
    """
    if not len(classes_N):
        raise ValueError("accuracy: there are no images")
    images_C = torch.bincount(classes_N)
    return 1.0 / (images_C[classes_N].double() * (images_C > 0).sum())
