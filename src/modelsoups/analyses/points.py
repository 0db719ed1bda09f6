"""Soups to evaluate (`Point`), and what was measured of a model on a data set (`Measured`).

Legend: N images of a data set.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.stats import scores
from modelsoups.stats.scores import Logits
from modelsoups.weights.state_dicts import EVERYTHING


@dataclass(frozen=True)
class Point:
    """A soup to evaluate: its models, and for each model one coefficient that all tensors share.

    head: the model whose head the soup has, if its models have heads for other classes (appendix E).
    """

    ingredients: tuple[Ingredient, ...]
    coefficients: tuple[float, ...]
    head: Ingredient | None = None

    @classmethod
    def uniform(cls, ingredients: Sequence[Ingredient], head: Ingredient | None = None) -> "Point":
        return cls(tuple(ingredients), (1 / len(ingredients),) * len(ingredients), head)

    @classmethod
    def of(cls, soup: Soup, ingredients: Sequence[Ingredient]) -> "Point":
        """Return a Soup as a Point; the order of its coefficients is that of `ingredients`."""
        return cls(tuple(ingredients), tuple(soup.coefficients[EVERYTHING]))

    def key(self) -> list[Any]:
        """Return the hashes of the models' weights and the coefficients: the key of the cache."""
        head = [self.head.sha256] if self.head else []
        return [hashes(self.ingredients), [round(c, 12) for c in self.coefficients], *head]


@dataclass(frozen=True)
class Measured:
    """One model's results on one data set: mean cross-entropy (nats), and correctness per image."""

    loss: float
    correct_N: np.ndarray

    @property
    def accuracy(self) -> float:
        return float(self.correct_N.mean())


Measures = dict[str, Measured]  # one model, by data set


def correctness(models: Sequence[Measures], names: Sequence[str]) -> list[np.ndarray]:
    """Return for each data set an array (models, images): 1.0 if a model is correct, else 0.0."""
    return [np.array([m[name].correct_N for m in models], float) for name in names]


def hashes(ingredients: Iterable[Ingredient]) -> list[str]:
    return [i.sha256 for i in ingredients]


def between(one: Ingredient, two: Ingredient, alpha: float = 0.5) -> Point:
    """Return the soup of two models with weights (1 - alpha) * one + alpha * two."""
    return Point((one, two), (1 - alpha, alpha))


def measured(logits: Logits) -> Measured:
    """Return loss and correctness of logits, (images, classes), with labels."""
    loss = scores.cross_entropy(logits.logits_NC, logits.labels_N)
    return Measured(loss, logits.correct_N.numpy())
