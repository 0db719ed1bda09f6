"""The text classification task: GLUE's data sets for BERT and T5 (section 3.3.3, J.4, J.5).

The score is accuracy, the mean of accuracy and F1, or Matthews correlation (data.text.score).

Shape letters: N examples of a data set, B of a batch, C options (classes), T tokens.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from modelsoups.config.data import TextDataConfig
from modelsoups.config.models import ModelConfig
from modelsoups.config.schema import Config
from modelsoups.data import order
from modelsoups.data.crops import CropStore
from modelsoups.data.order import WHOLE, Share
from modelsoups.data.text.sets import TextSet
from modelsoups.models.linear_probe import linear_probe
from modelsoups.models.text_classifier import Encoded, TextClassifier, TextEncoder, TokenBatch, build
from modelsoups.recipes.recipe import Recipe
from modelsoups.stats.text_scores import score_of
from modelsoups.tasks.task import Initial, Step, TrainingData
from modelsoups.tasks.text_scoring import TextScoring
from modelsoups.workers.processes import advance

WITHOUT = {"label_smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0, "aug": "minimal", "loss": "softmax", "teachers": ()}
WITHOUT |= {"image_size": None, "init": None}
WINDOW = 50  # batches among which texts are sorted by length


class TextClassification(TextScoring):
    """Classification of texts by the probability of each option, or by a linear head."""

    def __init__(self, text: TextDataConfig, batch_size: int) -> None:
        """text: the prompt, options and score; batch_size: examples per evaluation batch."""
        self.text, self.batch_size = text, batch_size
        self.options = list(dict.fromkeys(text.labels.values()))
        super().__init__(score_of(text.score, len(self.options)))

    @classmethod
    def of(cls, config: Config, crops: CropStore) -> "TextClassification":
        return cls(config.data.text, config.evaluate.batch_size)

    # ---- the model and its inputs ----

    def build(self, model: ModelConfig, classes: int) -> TextClassifier:
        network = build(model, self.options, self.text.prompt, list(self.text.fields))
        return network.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    def initial_models(self, model: ModelConfig, init: str) -> list[str]:
        """Return [init]; ValueError unless it is "lp" for a model with a head, else "zeroshot"."""
        expected = "lp" if model.text.objective == "head" else "zeroshot"
        if init != expected:
            way = f"model.text.objective={model.text.objective} starts from {expected}"
            raise ValueError(f"heads.init={init}: {way}; set heads.init={expected}")
        return [init]

    @torch.no_grad()
    def initialize(self, network: TextClassifier, start: Initial) -> None:
        """Load the pre-trained weights; for a model with a head, train it on frozen features."""
        fresh = self.build(start.model, len(start.train.classes))
        if isinstance(fresh, TextEncoder):
            self._probe(fresh, start)
        network.load_state_dict(fresh.state_dict())

    def _probe(self, network: TextEncoder, start: Initial) -> None:
        features = []
        for batch in self.test_batches(start.train, network):
            on_device = batch.to(network.head.weight.device)
            features.append(network.features(**on_device.tensors).float().cpu())
            advance(len(batch))
        labels_N = torch.from_numpy(start.train.labels_N)[self.test_order(start.train, network)]
        start_CD = torch.zeros_like(network.head.weight, device="cpu")
        with torch.enable_grad():
            weight_CD, bias_C = linear_probe(torch.cat(features), labels_N, start_CD, start.heads)
        network.head.weight.copy_(weight_CD)
        network.head.bias.copy_(bias_C)

    def example(self, model: TextClassifier) -> dict[str, Tensor]:
        """Return the tokens of two empty examples, by argument name, on the model's device."""
        empty = dict.fromkeys(self.text.fields, "")
        return model.collate(model.encode([empty, empty])).to(_device(model)).tensors

    def train_batches(
        self, model: TextClassifier, recipe: Recipe, data: TrainingData
    ) -> Iterator[tuple[TokenBatch, Tensor]]:
        """Yield (tokens, labels), similar lengths together. ValueError: image augmentation."""
        check_recipe(recipe)
        encoded = _encoded(data.train, model)
        lengths_N = torch.tensor([len(tokens) for tokens in encoded])
        labels_N = torch.from_numpy(data.train.labels_N)
        for index_B in batches_by_length(lengths_N, recipe, data.first, data.share):
            yield model.collate([encoded[index] for index in index_B.tolist()]), labels_N[index_B]

    def test_batches(self, dataset: TextSet, model: TextClassifier) -> Iterator[TokenBatch]:
        """Yield the tokens of a data set's examples, the longest first."""
        encoded = _encoded(dataset, model)
        for index_B in self.test_order(dataset, model).split(self.batch_size):
            yield model.collate([encoded[index] for index in index_B.tolist()])

    def test_order(self, dataset: TextSet, model: TextClassifier) -> Tensor:
        """Return the indices by decreasing length, so that batches need little padding."""
        lengths_N = torch.tensor([len(tokens) for tokens in _encoded(dataset, model)])
        return lengths_N.argsort(descending=True, stable=True)

    def inputs(self, dataset: TextSet, model: TextClassifier, index_B: Tensor) -> dict[str, Tensor]:
        """Return the tokens of the examples with these indices, by argument name."""
        encoded = _encoded(dataset, model)
        return model.collate([encoded[index] for index in index_B.tolist()]).to(_device(model)).tensors

    def logits(self, model: TextClassifier, batch: TokenBatch) -> Tensor:
        """Return each option's score, (B, C): its mean log-probability per token, or a logit."""
        return model(**batch.to(_device(model)).tensors)

    def loss(
        self, network: nn.Module, model: TextClassifier, batch: TokenBatch, labels_B: Tensor, step: Step
    ) -> Tensor:
        with step.autocast():
            losses_B: Tensor = network(labels_B=labels_B.to(_device(model)), **batch.tensors)
        return losses_B.mean()

    def chance_loss(self, model: TextClassifier, loss: str, classes: int) -> float:
        """Return the loss if all tokens (for a head: all classes) are equally likely."""
        return math.log(model.vocabulary)

    def project(self, dataset: TextSet, logits_NC: Tensor) -> Tensor:
        return logits_NC


def check_recipe(recipe: Recipe) -> None:
    """Raise ValueError if a recipe sets something that only the training on images knows."""
    for name, value in WITHOUT.items():
        if getattr(recipe, name) != value:
            shown = "null" if value is None else "[]" if value == () else value
            raise ValueError(
                f"recipe.{name}={getattr(recipe, name)}: texts are trained without it; set recipe.{name}={shown}"
            )


def batches_by_length(lengths_N: Tensor, recipe: Recipe, first: int, share: Share = WHOLE) -> Iterator[Tensor]:
    """Yield one rank's example indices of each micro-batch, from training step `first` on.

    Each epoch shuffles the examples, drops the last incomplete batch, sorts each window of 50
    batches by length (number of tokens), so that batches need little padding, and shuffles the
    batches. The order depends only on the recipe's seed and the epoch.
    """
    per_epoch, total = len(lengths_N) // recipe.batch_size, recipe.total_steps(len(lengths_N))
    for epoch in range(first // per_epoch, recipe.begun_epochs(len(lengths_N))):
        order_N = order.epoch_order(len(lengths_N), recipe.shuffled_by, epoch)[: per_epoch * recipe.batch_size]
        windows = order_N.split(WINDOW * recipe.batch_size)
        by_length_N = torch.cat([window[lengths_N[window].argsort(stable=True)] for window in windows])
        batches = by_length_N.view(per_epoch, recipe.batch_size)
        shuffled = batches[order.epoch_order(per_epoch, recipe.shuffled_by, "batches", epoch)]
        done = epoch * per_epoch
        for index_B in shuffled[max(0, first - done) : min(per_epoch, total - done)]:
            yield from share.of(index_B)


def _encoded(dataset: TextSet, model: TextClassifier) -> list[Encoded]:
    """Return the tokens of all examples of a data set, made once."""
    if "tokens" not in dataset.kept:
        dataset.kept["tokens"] = model.encode([dataset.fields(i) for i in range(len(dataset))])
    kept: list[Encoded] = dataset.kept["tokens"]
    return kept


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
