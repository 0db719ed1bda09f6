"""The image classification task: batches are uint8 pixels, and the score is top-1 accuracy.

Legend: N images of a set, B of a batch, C classes, H height, W width.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from modelsoups.config.schema import ModelConfig
from modelsoups.data.crops import CropStore
from modelsoups.data.gpu.augment import BatchPlan
from modelsoups.data.loader import Preprocessing, train_batches
from modelsoups.data.shards import ShardSet
from modelsoups.models.classifier import Classifier, build_on_device, normalise
from modelsoups.recipes.recipe import Recipe
from modelsoups.stats import paired_tests, scores
from modelsoups.stats.projection import project
from modelsoups.tasks import image_targets
from modelsoups.tasks.task import Comparison, Step, Task, TrainingData


class ImageClassification(Task):
    """Top-1 classification of images by a pre-trained encoder with a linear head."""

    def __init__(self, crops: CropStore, batch_size: int) -> None:
        """crops: the evaluation crops of the sets. batch_size: images per batch in evaluation."""
        self.crops, self.batch_size = crops, batch_size

    def build(self, model: ModelConfig, classes: int) -> Classifier:
        return build_on_device(model, classes)

    def example(self, model: Classifier) -> Tensor:
        """Return two images_BCHW of zeros."""
        return next(model.parameters()).new_zeros(2, 3, model.image_size, model.image_size)

    def prepare(self, dataset: ShardSet, model: ModelConfig) -> None:
        """Decode a set into the run's folder if it is too large for memory."""
        self.crops.prepare(dataset, model.image_size)

    def train_batches(
        self, model: Classifier, recipe: Recipe, data: TrainingData
    ) -> Iterator[tuple[Tensor | BatchPlan, Tensor]]:
        """Yield (uint8 pixels_BCHW, labels_B); with augment=gpu, a plan for pixels on the GPU."""
        preprocessing = Preprocessing(model.image_size, model.mean, data.decoder, data.augment, data.side_by_side)
        return train_batches(data.train, recipe, preprocessing, data.first, data.share, data.skipped)

    def test_batches(self, dataset: ShardSet, model: Classifier) -> Iterator[Tensor]:
        """Yield uint8 pixels_BCHW, resized and cropped as in CLIP's evaluation."""
        return self.crops.batches(dataset, model.image_size, self.batch_size)

    def inputs(self, dataset: ShardSet, model: Classifier, index_B: Tensor) -> Tensor:
        """Return normalised images_BCHW of the images with these indices."""
        pixels_NCHW = self.crops.pixels(dataset, model.image_size)
        if pixels_NCHW is None:  # too large for the disk budget: decode into memory
            pixels_NCHW = self.crops.in_memory(dataset, model.image_size)
        return normalise(model, pixels_NCHW[index_B])

    def logits(self, model: Classifier, batch: Tensor) -> Tensor:
        """Return the logits_BC of uint8 pixels_BCHW."""
        return model(normalise(model, batch))

    def loss(self, network: nn.Module, model: Classifier, batch: Tensor, labels_B: Tensor, step: Step) -> Tensor:
        recipe = step.recipe
        images_BCHW = normalise(model, batch)
        targets_BC = image_targets.soft_targets(labels_B, step.classes, recipe.label_smoothing)
        images_BCHW, targets_BC = image_targets.mix_batch(images_BCHW, targets_BC, recipe, step.number)
        with step.autocast():
            if step.teachers:
                with torch.no_grad():
                    predicted = [teacher(images_BCHW) for teacher in step.teachers]
                targets_BC = image_targets.ensemble_targets(predicted, recipe.loss)
            logits_BC = network(images_BCHW)
        return image_targets.LOSSES[recipe.loss](logits_BC, targets_BC)

    def chance_loss(self, loss: str, classes: int) -> float:
        """Return the loss of equal logits: ln C for softmax, C ln 2 for binary."""
        return image_targets.chance_loss(loss, classes)

    def project(self, dataset: ShardSet, logits_NC: Tensor) -> Tensor:
        """Return logits of the set's own classes (for ImageNet-R, ImageNet-A and ObjectNet)."""
        return project(logits_NC, dataset.projection)

    def points(self, logits_NC: Tensor, labels_N: Tensor) -> int:
        """Return the number of images whose top-1 class is correct."""
        return scores.correct(logits_NC, labels_N)

    def outcomes(self, logits_NC: Tensor, labels_N: Tensor) -> np.ndarray:
        """Return correct_N, a bool per image: whether its top-1 class is correct."""
        return (logits_NC.argmax(dim=1) == labels_N).numpy()

    def score(self, outcomes_N: np.ndarray) -> float:
        """Return the top-1 accuracy, 0 to 1."""
        return float(outcomes_N.mean())

    def compare(self, one_N: np.ndarray, two_N: np.ndarray) -> Comparison:
        """Compare two models on one set by the exact McNemar test (table 4)."""
        difference = self.score(one_N) - self.score(two_N)
        low, high = paired_tests.paired_mean_interval([(one_N, two_N)])
        return Comparison(difference, low, high, paired_tests.mcnemar_exact(one_N, two_N).p)

    def compare_means(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Comparison:
        """Compare two models' mean over sets by a paired permutation test (table 4)."""
        difference, p = paired_tests.paired_mean_test(pairs, seed=0)
        return Comparison(difference, *paired_tests.paired_mean_interval(pairs), p)
