"""The interface Task between data, model and score; task=mymodule:MyTask selects your own subclass.

Shape letters: N examples of a data set, B examples of a batch, C outputs of the model.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from modelsoups.config.models import ModelConfig
from modelsoups.config.schema import Config, HeadsConfig
from modelsoups.recipes.recipe import Recipe
from modelsoups.soup.holdout import Inputs
from modelsoups.stats import intervals
from modelsoups.stats.paired_tests import Comparison as Comparison


@dataclass(frozen=True)
class TrainingData:
    """The arguments of Task.train_batches that say which data to load, from which step, and how."""

    train: Any  # the prepared training set
    first: int  # the step at which to start
    share: Any  # the part of each batch that this process takes
    skipped: Any  # the record of unreadable examples
    decoder: str
    augment: str  # cpu or gpu
    side_by_side: int  # number of runs that share the cores of this machine
    shared: Path | None = None  # file of decoded images that runs share (finetune.share)


@dataclass(frozen=True)
class Step:
    """The arguments of Task.loss that describe the training step: recipe, step number, teachers."""

    recipe: Recipe
    number: int
    classes: int
    autocast: Callable[[], AbstractContextManager[object]]
    teachers: Sequence[nn.Module] = ()


@dataclass(frozen=True)
class Initial:
    """The arguments of Task.initialize: which initial model to make, from which data, and how."""

    init: str  # lp, zeroshot, or a linear probe such as lp-518, lp-binary or lp-518-binary
    train: Any  # the prepared training set
    heads: HeadsConfig
    model: ModelConfig
    zeroshot: Path | None  # the weights of the zero-shot model, if they are complete

    @property
    def image_size(self) -> int | None:
        """Return the side of the images of the linear probe in pixels; None: the model's own."""
        sizes = [int(part) for part in self.init.split("-") if part.isdigit()]
        return sizes[0] if sizes else None

    @property
    def binary(self) -> bool:
        """Return whether the linear probe is trained with binary cross-entropy."""
        return self.init.endswith("-binary")


class Task(ABC):
    """A learning task: how to load batches, build the model, compute the loss and score.

    A batch is any object that `train_batches` yields for `loss`, or `test_batches` for `logits`. A
    batch of `test_batches` must have a length, and allow indexing by a boolean mask of examples.

    Own tasks may set `score_name` and `unit`, the words for scores and examples in reports, and
    `view`, if an option of the evaluation changes a model's logits.
    """

    score_name: str = "accuracy"
    unit: str = "examples"
    view: str = ""  # a name of how examples are seen in evaluations, for the files of their logits

    @classmethod
    def of(cls, config: Config, crops: Any) -> "Task":
        """Return the task of a run. crops: a cache for decoded and cropped images."""
        return cls(crops, config.evaluate.batch_size)  # type: ignore[call-arg]

    # ---- the model and its inputs ----

    @abstractmethod
    def build(self, model: ModelConfig, classes: int) -> Any:
        """Return the pre-trained model with one output per class, in evaluation mode."""

    def initial_models(self, model: ModelConfig, init: str) -> list[str]:
        """Return the initial models (lp, zeroshot) to make for heads.init=`init`, in order."""
        return [init]

    def initialize(self, network: Any, start: Initial) -> None:
        """Turn what `build` returns into an initial model; by default, leave it unchanged."""
        return

    @abstractmethod
    def example(self, model: Any) -> Inputs:
        """Return a batch of two inputs of zeros; it is used to count FLOPs and to set up DDP."""

    def training_example(self, model: Any, recipe: Recipe) -> Inputs:
        """Return a batch like `example`, of the size that the recipe trains on."""
        return self.example(model)

    def prepare(self, dataset: Any, model: ModelConfig) -> None:
        """Preprocess a data set to disk, if useful, once for all models evaluated on it."""
        return

    @abstractmethod
    def train_batches(self, model: Any, recipe: Recipe, data: TrainingData) -> Iterator[tuple[Any, Tensor]]:
        """Yield (batch, labels) from step data.first on, which depend only on recipe and step."""

    @abstractmethod
    def test_batches(self, dataset: Any, model: Any) -> Iterator[Any]:
        """Yield batches of the examples of a data set, in `test_order` and without augmentation."""

    def test_order(self, dataset: Any, model: Any) -> Tensor | None:
        """Return the order of the examples in `test_batches`; None: that of the data set."""
        return None

    @abstractmethod
    def inputs(self, dataset: Any, model: Any, index_B: Tensor) -> Any:
        """Return the model's input for the examples with these indices, on the model's device."""

    @abstractmethod
    def logits(self, model: Any, batch: Any) -> Tensor:
        """Return the model's logits, (examples, outputs), for a batch of `test_batches`."""

    @abstractmethod
    def loss(self, network: nn.Module, model: Any, batch: Any, labels_B: Tensor, step: Step) -> Tensor:
        """Return a batch's mean loss, computed by `network`: `model` after torch.compile or DDP."""

    @abstractmethod
    def chance_loss(self, model: Any, loss: str, classes: int) -> float:
        """Return the loss of equal logits; a run whose loss stays far above this has diverged."""

    # ---- the score ----

    @abstractmethod
    def project(self, dataset: Any, logits_NC: Tensor) -> Tensor:
        """Convert logits over the model's classes to logits over the data set's own classes."""

    @abstractmethod
    def points(self, logits_NC: Tensor, labels_N: Tensor) -> float:
        """Return what model selection maximizes, such as the number of correct images."""

    @abstractmethod
    def outcomes(self, logits_NC: Tensor, labels_N: Tensor) -> np.ndarray:
        """Return one result per example (such as correct or not), for `score` and `compare`."""

    def points_on(self, dataset: Any) -> Callable[[Tensor, Tensor], float]:
        """Return the function `points` for one data set; override it if a score needs more of the set."""
        return self.points

    def outcomes_on(self, dataset: Any, logits_NC: Tensor, labels_N: Tensor) -> np.ndarray:
        """Return `outcomes` for one data set; override it if a score needs more of the set."""
        return self.outcomes(logits_NC, labels_N)

    @abstractmethod
    def score(self, outcomes_N: np.ndarray) -> float:
        """Return a model's score on a data set, given the array from `outcomes`."""

    def count_correct(self, outcomes_N: np.ndarray) -> int:
        """Return the number of correct examples if the score is an accuracy, otherwise 0.

        By default the score is taken for an accuracy if `outcomes` returns booleans.
        """
        return int(outcomes_N.sum()) if outcomes_N.dtype == bool else 0

    def interval(self, outcomes_N: np.ndarray) -> tuple[float, float]:
        """Return the ends of the score's 95% interval, given the array from `outcomes`.

        By default Wilson's interval for booleans, otherwise a percentile interval by a bootstrap.
        """
        if outcomes_N.dtype == bool:
            return intervals.wilson(self.count_correct(outcomes_N), len(outcomes_N))
        low, high = np.quantile(intervals.resampled(outcomes_N, self.score), [0.025, 0.975])
        return float(low), float(high)

    def variance(self, outcomes_N: np.ndarray) -> float:
        """Return the variance of the score over examples; its root is the standard error.

        By default p (1 - p) / N for booleans, with score p, otherwise by a bootstrap.
        """
        if outcomes_N.dtype == bool:
            share = self.score(outcomes_N)
            return share * (1 - share) / len(outcomes_N)
        return float(intervals.resampled(outcomes_N, self.score).var(ddof=1))

    @abstractmethod
    def compare(self, one_N: np.ndarray, two_N: np.ndarray) -> Comparison:
        """Compare two models' scores on one data set by a paired test of their `outcomes`."""

    @abstractmethod
    def compare_means(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Comparison:
        """Compare two models' mean scores over data sets; a pair: their outcomes on one set."""
