"""Task: the one interface between data, model and score. Adding a task is one file beside this one.

Legend: N examples of a set, B of a batch, C outputs of the model.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from torch import Tensor, nn

from modelsoups.config.schema import ModelConfig
from modelsoups.recipes.recipe import Recipe


class Comparison(NamedTuple):
    """Model a less model b: difference of scores, its 95% interval, and the two-sided p-value."""

    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class TrainingData:
    """What the batches of a run are made from, beside its recipe."""

    train: Any  # the prepared training set
    first: int  # the step to begin at
    share: Any  # the part of each batch that this process takes
    skipped: Any  # where unreadable examples are recorded
    decoder: str
    augment: str  # cpu or gpu
    side_by_side: int  # runs that share the cores of this machine


@dataclass(frozen=True)
class Step:
    """What a loss depends on beside the batch."""

    recipe: Recipe
    number: int
    classes: int
    autocast: Callable[[], AbstractContextManager[object]]
    teachers: Sequence[nn.Module] = ()


class Task(ABC):
    """What is learned: what a batch is, how a model takes it, its loss, and how it is scored.

    A batch is whatever `train_batches` and `test_batches` yield and `logits` and `loss` take. One of
    `test_batches` has a length, and a mask of examples selects from it.
    """

    examples: ClassVar[str]  # what is counted: images
    score_name: ClassVar[str]  # accuracy

    # ---- the model and its inputs ----

    @abstractmethod
    def build(self, model: ModelConfig, classes: int) -> Any:
        """The pre-trained network with an output for each class, ready for evaluation."""

    @abstractmethod
    def example(self, model: Any) -> Tensor:
        """Two inputs of the network, of zeros: for counting operations and wrapping the network."""

    def prepare(self, dataset: Any, model: ModelConfig) -> None:
        """Write what many models will read of a set, so that each need not make it again."""
        return

    @abstractmethod
    def train_batches(self, model: Any, recipe: Recipe, data: TrainingData) -> Iterator[tuple[Any, Tensor]]:
        """(batch, labels_B) of every step, a function of the recipe's seed and the step alone."""

    @abstractmethod
    def test_batches(self, dataset: Any, model: Any) -> Iterator[Any]:
        """The examples of a prepared set in its order, without augmentation."""

    @abstractmethod
    def inputs(self, dataset: Any, model: Any, index_B: Tensor) -> Any:
        """What the network itself takes, for some examples of a set, on the network's device."""

    @abstractmethod
    def logits(self, model: Any, batch: Any) -> Tensor:
        """logits_BC of a batch."""

    @abstractmethod
    def loss(self, network: nn.Module, model: Any, batch: Any, labels_B: Tensor, step: Step) -> Tensor:
        """The mean loss of a batch. network: the model as training calls it, compiled or wrapped."""

    @abstractmethod
    def chance_loss(self, loss: str, classes: int) -> float:
        """The loss of a model that has learned nothing; far above it, a run counts as diverged."""

    # ---- the score ----

    @abstractmethod
    def project(self, dataset: Any, logits_NC: Tensor) -> Tensor:
        """Logits in the label space of a data set."""

    @abstractmethod
    def points(self, logits_NC: Tensor, labels_N: Tensor) -> float:
        """What choices are made by: more is better, and equally good models get equal points."""

    @abstractmethod
    def outcomes(self, logits_NC: Tensor, labels_N: Tensor) -> np.ndarray:
        """What each example contributes to the score, first axis N; scores are compared by it."""

    @abstractmethod
    def score(self, outcomes_N: np.ndarray) -> float:
        """The score of a model on a set."""

    @abstractmethod
    def compare(self, one_N: np.ndarray, two_N: np.ndarray) -> Comparison:
        """The scores of two models on one set, by a paired test of their outcomes."""

    @abstractmethod
    def compare_means(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Comparison:
        """The mean over several sets, by a paired test. pairs: both models' outcomes on each."""
