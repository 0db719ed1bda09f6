"""Task, the interface between data, model and score. For one of your own: task=mymodule:Task.

Legend: N examples of a set, B of a batch, C outputs of the model.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from modelsoups.config.schema import ModelConfig
from modelsoups.recipes.recipe import Recipe


class Comparison(NamedTuple):
    """The score of one model minus another's, with its 95% interval and the two-sided p-value."""

    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class TrainingData:
    """The inputs of a run's training batches, besides its recipe."""

    train: Any  # the prepared training set
    first: int  # the step at which to start
    share: Any  # the part of each batch that this process takes
    skipped: Any  # the record of unreadable examples
    decoder: str
    augment: str  # cpu or gpu
    side_by_side: int  # number of runs that share the cores of this machine


@dataclass(frozen=True)
class Step:
    """The inputs of a loss besides the batch."""

    recipe: Recipe
    number: int
    classes: int
    autocast: Callable[[], AbstractContextManager[object]]
    teachers: Sequence[nn.Module] = ()


class Task(ABC):
    """A learning task: its batches, model, loss and score.

    A batch is any object that `train_batches` or `test_batches` yields and `loss` or `logits` takes. A
    batch of `test_batches` has a length, and can be indexed by a boolean mask of examples.
    """

    # ---- the model and its inputs ----

    @abstractmethod
    def build(self, model: ModelConfig, classes: int) -> Any:
        """Return the pre-trained network with one output per class, ready for evaluation."""

    @abstractmethod
    def example(self, model: Any) -> Tensor:
        """Return a batch of two zero inputs, to count operations and to wrap the network."""

    def prepare(self, dataset: Any, model: ModelConfig) -> None:
        """Preprocess a set to disk, if that is useful, so that not every model has to do it."""
        return

    @abstractmethod
    def train_batches(self, model: Any, recipe: Recipe, data: TrainingData) -> Iterator[tuple[Any, Tensor]]:
        """Yield (batch, labels_B) for every step; only the recipe's seed and the step matter."""

    @abstractmethod
    def test_batches(self, dataset: Any, model: Any) -> Iterator[Any]:
        """Yield batches of a prepared set's examples, in order and without augmentation."""

    @abstractmethod
    def inputs(self, dataset: Any, model: Any, index_B: Tensor) -> Any:
        """Return the network's input for the examples with these indices, on its device."""

    @abstractmethod
    def logits(self, model: Any, batch: Any) -> Tensor:
        """Return the logits_BC of a batch."""

    @abstractmethod
    def loss(self, network: nn.Module, model: Any, batch: Any, labels_B: Tensor, step: Step) -> Tensor:
        """Return the mean loss of a batch; network is the compiled or wrapped model."""

    @abstractmethod
    def chance_loss(self, loss: str, classes: int) -> float:
        """Return the loss of uninformative predictions; a far larger loss means divergence."""

    # ---- the score ----

    @abstractmethod
    def project(self, dataset: Any, logits_NC: Tensor) -> Tensor:
        """Return logits for the classes of a data set."""

    @abstractmethod
    def points(self, logits_NC: Tensor, labels_N: Tensor) -> float:
        """Return the number that choices maximize; equally good models have equal numbers."""

    @abstractmethod
    def outcomes(self, logits_NC: Tensor, labels_N: Tensor) -> np.ndarray:
        """Return each example's share of the score, first axis N, for `score` and paired tests."""

    @abstractmethod
    def score(self, outcomes_N: np.ndarray) -> float:
        """Return the score of a model on a set."""

    @abstractmethod
    def compare(self, one_N: np.ndarray, two_N: np.ndarray) -> Comparison:
        """Compare two models' scores on one set by a paired test of their outcomes."""

    @abstractmethod
    def compare_means(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Comparison:
        """Compare two models' mean scores over sets by a paired test of the pairs of outcomes."""
