"""The images that analyses use (a part of each test set), and the logits of models on them.

Legend: N images, C classes, H height, W width.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modelsoups.data.crops import Crops
from modelsoups.data.shards import ShardSet
from modelsoups.data.transforms import View
from modelsoups.experiment.experiment import Experiment
from modelsoups.experiment.ingredients import load_weights
from modelsoups.models.classifier import Classifier, normalise
from modelsoups.soup.coefficients import Ingredient
from modelsoups.stats import multilabel
from modelsoups.stats.projection import project
from modelsoups.stats.scores import Logits
from modelsoups.tasks.images import ImageClassification


class Images:
    """Loads a run's images and computes logits; caches 12 models' weights and 16 sets' pixels."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.weights = functools.lru_cache(maxsize=12)(load_weights)
        self._pixels = functools.lru_cache(maxsize=16)(self._decode)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only the run; a worker process then loads weights and pixels by itself."""
        return Images, (self.experiment,)

    def dataset(self, name: str) -> ShardSet:
        return self.experiment.sets[name]

    def classifier(self, name: str) -> Classifier:
        """Return a network with a head for the data set's classes; callers set its weights."""
        return self.experiment.classifier(len(self.dataset(name).classes))

    def positions(self, name: str, images: int | None = None) -> np.ndarray:
        """Return indices of `images` images (default: analyse.images), spread over a data set.

        Return all indices if the data set has fewer images, and by default for the hold-out.
        """
        n = len(self.dataset(name))
        config = self.experiment.config
        most = images or (None if name == config.data.holdout else config.analyse.images)
        if most is None or most >= n:
            return np.arange(n)
        return np.linspace(0, n - 1, most).round().astype(int)

    def batches(self, name: str, images: int | None = None) -> tuple[Sequence[Tensor], Tensor]:
        """Return the images to analyse as uint8 batches (B, C, H, W), and their labels (N,)."""
        labels_N = torch.from_numpy(self.dataset(name).labels_N[self.positions(name, images)])
        return self._pixels(name, images).split(self.experiment.config.evaluate.batch_size), labels_N

    def _decode(self, name: str, images: int | None) -> Tensor:
        model, task = self.classifier(name), self.experiment.task
        view = task.seen_by(model) if isinstance(task, ImageClassification) else View(model.image_size)
        crops = Crops(self.dataset(name), view)
        return torch.stack([crops[int(i)] for i in self.positions(name, images)])

    @torch.inference_mode()
    def forward(self, name: str, state: Mapping[str, Tensor]) -> Logits:
        """Run the model with these weights; return its logits over the data set's classes."""
        dataset = self.dataset(name)
        if len(self.positions(name)) == len(dataset):  # pixels may not fit in memory
            return Logits(name, self.experiment.logits.forward(name, state), torch.from_numpy(dataset.labels_N))
        batches, labels_N = self.batches(name)
        model = self.classifier(name)
        model.load_state_dict(dict(state))
        parts = [model(normalise(model, pixels_BCHW)).float().cpu() for pixels_BCHW in batches]
        logits_NC = project(torch.cat(parts), dataset.projection)
        if dataset.answers_NA is not None:
            answers_NA = torch.from_numpy(dataset.answers_NA[self.positions(name)])
            logits_NC = multilabel.merged(logits_NC, answers_NA)
        return Logits(name, logits_NC, labels_N)

    def logits(self, ingredient: Ingredient, name: str) -> Logits:
        """Return a model's logits on the images that `positions` selects, cached in a file."""
        cache, dataset = self.experiment.logits, self.dataset(name)
        picks_N = torch.from_numpy(self.positions(name))
        whole = cache.path(name, ingredient.sha256)
        if whole.exists() or len(picks_N) == len(dataset):
            state = None if whole.exists() else self.weights(ingredient)
            every = cache.of(name, ingredient.sha256, state)
            return Logits(name, every.logits_NC[picks_N], every.labels_N[picks_N])
        part = cache.path(name, ingredient.sha256, len(picks_N))
        logits_NC = cache.cached(part, lambda: self.forward(name, self.weights(ingredient)).logits_NC)
        return Logits(name, logits_NC, torch.from_numpy(dataset.labels_N)[picks_N])

    def is_cached(self, ingredient: Ingredient, name: str) -> bool:
        """Return whether this model's logits on this data set are already in a file."""
        path = self.experiment.logits.path
        whole, part = path(name, ingredient.sha256), path(name, ingredient.sha256, len(self.positions(name)))
        return whole.exists() or part.exists()
