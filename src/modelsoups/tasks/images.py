"""The image classification task: batches are uint8 pixels; the score is data.score, by default accuracy.

Shape letters: N images of a data set, B of a batch, C classes or channels, H height, W width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from modelsoups.checkpoints.formats import load_state
from modelsoups.config.models import ModelConfig
from modelsoups.config.schema import Config
from modelsoups.data.crops import CropStore
from modelsoups.data.gpu.augment import BatchPlan
from modelsoups.data.loader import Preprocessing, train_batches
from modelsoups.data.shards import ShardSet
from modelsoups.data.transforms import View
from modelsoups.models.classifier import (
    Classifier,
    build,
    build_on_device,
    has_text_tower,
    load_clip,
    normalise,
    zeroshot_weights,
)
from modelsoups.models.linear_probe import extract_features, linear_probe
from modelsoups.recipes.recipe import Recipe
from modelsoups.stats.image_scores import ImageScore, TopOne, score_of
from modelsoups.stats.projection import project
from modelsoups.tasks import UNITS, image_targets
from modelsoups.tasks.task import Comparison, Initial, Step, Task, TrainingData


class ImageClassification(Task):
    """Image classification by a pre-trained encoder with a linear head."""

    score_name = TopOne.name
    unit = UNITS["images"]
    scoring: ImageScore = TopOne()
    seen: View | None = None  # how images are evaluated; None: as CLIP does it, at the model's own size
    taken: View | None = None  # `seen` at the size that the model takes, once that is known

    def __init__(self, crops: CropStore, batch_size: int) -> None:
        """crops: the cache of cropped test images; batch_size: images per evaluation batch."""
        self.crops, self.batch_size = crops, batch_size

    @classmethod
    def of(cls, config: Config, crops: CropStore) -> "ImageClassification":
        """Return the task of a run, with its score (data.score) and its view of images (evaluate.*)."""
        given, own = config.evaluate, config.model.image_size
        task = cls(crops, given.batch_size)
        task.scoring = score_of(config.data.score)
        task.score_name = task.scoring.name
        seen = View(given.image_size or own, given.resize, given.resize_mode == "squash")
        if seen.name != View(own).name:
            task.seen, task.view = seen, seen.name
        return task

    def build(self, model: ModelConfig, classes: int) -> Classifier:
        return build_on_device(model, classes)

    def initial_models(self, model: ModelConfig, init: str) -> list[str]:
        """Return [init], after "zeroshot" if the model has a text tower to make it."""
        return ["zeroshot", init] if init != "zeroshot" and has_text_tower(model) else [init]

    @torch.no_grad()
    def initialize(self, network: Classifier, start: Initial) -> None:
        """Set the encoder and the zero-shot head or linear probe of the initial model (section 3.1).

        The linear probe is trained on frozen features, without augmentation; it starts from the
        zero-shot head or, without a text tower (timm), from zero.
        """
        train, text_tower, probe = start.train, has_text_tower(start.model), start.init != "zeroshot"
        network.head.bias.zero_()
        if probe and not text_tower:
            network.head.weight.zero_()
        elif probe and start.zeroshot:  # encoding the prompts would take minutes
            network.load_state_dict(load_state(start.zeroshot))
        else:
            clip = load_clip(start.model)
            network.encoder.load_state_dict(clip.model.visual.state_dict())
            network.head.weight.copy_(zeroshot_weights(clip, train.classes, train.templates))
        if probe:
            size = start.image_size
            side = network.image_size if size is None else network.adapt(size, "recipe.init=lp-N, N")
            features_ND = extract_features(network, self.crops.batches(train, View(side), self.batch_size))
            labels_N, start_CD = torch.from_numpy(train.labels_N), network.head.weight.detach().cpu()
            with torch.enable_grad():
                weight_CD, bias_C = linear_probe(features_ND, labels_N, start_CD, start.heads, start.binary)
            network.head.weight.copy_(weight_CD)
            network.head.bias.copy_(bias_C)

    def example(self, model: Classifier) -> Tensor:
        """Return two images of zeros, (2, 3, H, W), of the model's size, on the model's device."""
        return _zeros(model, model.image_size)

    def training_example(self, model: Classifier, recipe: Recipe) -> Tensor:
        """Return two images of zeros, (2, 3, H, W), of the size recipe.image_size."""
        return _zeros(model, training_side(model, recipe))

    def prepare(self, dataset: ShardSet, model: ModelConfig) -> None:
        """Decode and crop a data set to a file in the run's folder, if too large for memory."""
        if self.seen is None:
            self.crops.prepare(dataset, View(model.image_size))
            return
        self.taken = self.taken or self.seen_by(build(model, num_classes=1))
        self.crops.prepare(dataset, self.taken)

    def train_batches(
        self, model: Classifier, recipe: Recipe, data: TrainingData
    ) -> Iterator[tuple[Tensor | BatchPlan, Tensor]]:
        """Yield (uint8 pixels, labels); with augment=gpu, a BatchPlan in place of the pixels."""
        side = training_side(model, recipe)
        preprocessing = Preprocessing(side, model.mean, data.decoder, data.augment, data.side_by_side, data.shared)
        return train_batches(data.train, recipe, preprocessing, data.first, data.share, data.skipped)

    def test_batches(self, dataset: ShardSet, model: Classifier) -> Iterator[Tensor]:
        """Yield batches of uint8 pixels, resized and cropped as the keys of `evaluate` say."""
        return self.crops.batches(dataset, self.seen_by(model), self.batch_size)

    def seen_by(self, model: Classifier) -> View:
        """Return how images are resized and cropped for a model; ValueError if it cannot take them."""
        if self.seen is None:
            return View(model.image_size)
        view = replace(self.seen, side=model.adapt(self.seen.side, "evaluate.image_size"))
        if view.resize is not None and view.resize < view.side:
            raise ValueError(f"evaluate.resize={view.resize}: expected at least the {view.side} pixels of the crop")
        return view

    def inputs(self, dataset: ShardSet, model: Classifier, index_B: Tensor) -> Tensor:
        """Return the normalised pixels, (B, C, H, W), of the images with these indices."""
        view = self.seen_by(model)
        pixels_NCHW = self.crops.pixels(dataset, view)
        if pixels_NCHW is None:  # too large for the disk budget: decode into memory
            pixels_NCHW = self.crops.in_memory(dataset, view)
        return normalise(model, pixels_NCHW[index_B])

    def logits(self, model: Classifier, batch: Tensor) -> Tensor:
        """Return the model's logits, (images, classes), of a batch of uint8 pixels."""
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

    def chance_loss(self, model: Classifier, loss: str, classes: int) -> float:
        """Return the loss of equal logits for C classes: ln C for softmax, C ln 2 for binary."""
        return image_targets.chance_loss(loss, classes)

    def project(self, dataset: ShardSet, logits_NC: Tensor) -> Tensor:
        """Convert logits to the classes of the data set (ImageNet-R, ImageNet-A, ObjectNet)."""
        return project(logits_NC, dataset.projection)

    def points(self, logits_NC: Tensor, labels_N: Tensor) -> float:
        """Return the score times N: for the accuracy, the number of correct images."""
        return self.scoring.points(self.outcomes(logits_NC, labels_N))

    def outcomes(self, logits_NC: Tensor, labels_N: Tensor) -> np.ndarray:
        """Return one outcome per image, (N,), for a score without groups: of accuracy, correct or not."""
        return self._outcomes(logits_NC, labels_N, None)

    def points_on(self, dataset: ShardSet) -> Callable[[Tensor, Tensor], float]:
        """Return `points` for a data set, with its groups if the score needs them."""
        return GroupPoints(self, torch.from_numpy(dataset.groups_N)) if self.scoring.needs_groups else self.points

    def outcomes_on(self, dataset: ShardSet, logits_NC: Tensor, labels_N: Tensor) -> np.ndarray:
        """Return `outcomes` for a data set, with its groups if the score needs them."""
        return self._outcomes(logits_NC, labels_N, dataset.groups_N if self.scoring.needs_groups else None)

    def _outcomes(self, logits_NC: Tensor, labels_N: Tensor, groups_N: np.ndarray | None) -> np.ndarray:
        return self.scoring.outcomes(logits_NC.argmax(dim=1).cpu().numpy(), labels_N.cpu().numpy(), groups_N)

    def score(self, outcomes_N: np.ndarray) -> float:
        """Return the score, from 0 to 1, such as the top-1 accuracy."""
        return self.scoring.score(outcomes_N)

    def count_correct(self, outcomes_N: np.ndarray) -> int:
        """Return the number of correct images if the score is the accuracy, otherwise 0."""
        return self.scoring.count_correct(outcomes_N)

    def interval(self, outcomes_N: np.ndarray) -> tuple[float, float]:
        """Return Wilson's interval of an accuracy, or a bootstrap interval of another score."""
        return self.scoring.interval(outcomes_N)

    def variance(self, outcomes_N: np.ndarray) -> float:
        """Return the variance of the score; its root is the standard error."""
        return self.scoring.variance(outcomes_N)

    def compare(self, one_N: np.ndarray, two_N: np.ndarray) -> Comparison:
        """Compare two models by McNemar's exact test (Table 4), or for other scores a paired bootstrap."""
        return self.scoring.compare(one_N, two_N)

    def compare_means(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Comparison:
        """Compare two models' mean scores over data sets by a permutation test or a paired bootstrap."""
        return self.scoring.compare_means(pairs)


@dataclass(frozen=True)
class GroupPoints:
    """What model selection maximizes on a data set whose score needs the groups of its images."""

    task: ImageClassification
    groups_N: Tensor

    def __call__(self, logits_NC: Tensor, labels_N: Tensor) -> float:
        outcomes_N = self.task._outcomes(logits_NC, labels_N, self.groups_N.numpy())
        return self.task.scoring.points(outcomes_N)

    def part(self, index_n: Tensor) -> "GroupPoints":
        """Return the function for only these images."""
        return GroupPoints(self.task, self.groups_N[index_n])


def training_side(model: Classifier, recipe: Recipe) -> int:
    """Return the side of the training images in pixels: recipe.image_size, if the model takes it."""
    return model.image_size if recipe.image_size is None else model.adapt(recipe.image_size, "recipe.image_size")


def _zeros(model: Classifier, side: int) -> Tensor:
    return next(model.parameters()).new_zeros(2, 3, side, side)
