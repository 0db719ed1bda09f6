"""The inputs of a soup method: the ingredients and the hold-out, never a test set."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelsoups.checkpoints.states import State
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.soup.greedy_rule import best_first
from modelsoups.soup.holdout import Inputs, call_with, check_labels
from modelsoups.stats import scores
from modelsoups.weights.state_dicts import EVERYTHING

Gradient = tuple[float, float, dict[str, Tensor]]  # loss, d loss / d beta, d loss / d weights


@dataclass(frozen=True)
class Pool:
    """The models that a soup is chosen from, their hold-out logits, and functions for weights.

    logits: of each model on the hold-out, (N images, C classes). state(i): the weights of model i.
    evaluate(state): the hold-out logits of any weights. gradient(state, beta, index_B):
    `model_gradient` on images index_B; only learned soups need it. device: where the gradient is
    computed and learned soups store all weights, if they fit. points(logits_NC, labels_N): the
    score that methods maximize, by default the number of correct images; its method `part(index_n)`, if it
    has one, returns the function for a part of the hold-out. Raises ValueError for an
    empty pool or hold-out, repeated ids, logits that are not finite, or labels outside the classes.
    """

    ingredients: tuple[Ingredient, ...]
    logits: tuple[Tensor, ...]
    labels_N: Tensor
    state: Callable[[int], State]
    evaluate: Callable[[State], Tensor]
    gradient: Callable[[State, float, Tensor], Gradient] | None = None
    device: torch.device | str = "cpu"
    points: Callable[[Tensor, Tensor], float] = scores.correct

    def __post_init__(self) -> None:
        if not self.ingredients:
            raise ValueError("the pool is empty: a soup needs ingredients")
        if len(self.logits) != len(self.ingredients):
            raise ValueError(f"the pool has {len(self.ingredients)} ingredients but logits of {len(self.logits)}")
        ids = [i.id for i in self.ingredients]
        name, count = Counter(ids).most_common(1)[0]
        if count > 1:
            raise ValueError(f"ingredient {name} is in the pool twice")
        if not len(self.labels_N):
            raise ValueError("the hold-out is empty")
        for name, logits_NC in zip(ids, self.logits, strict=True):
            self.check(logits_NC, f"ingredient {name}")
        if self.points is scores.correct:
            check_labels(self.labels_N, self.logits[0].shape[1])

    def __len__(self) -> int:
        return len(self.ingredients)

    def check(self, logits_NC: Tensor, whose: str) -> None:
        """Raise ValueError, with `whose` first, unless logits are finite and of all N images."""
        if logits_NC.ndim != 2 or len(logits_NC) != len(self.labels_N):
            raise ValueError(f"{whose}: hold-out logits {tuple(logits_NC.shape)} for {len(self.labels_N)} images")
        if not bool(torch.isfinite(logits_NC).all()):
            raise ValueError(f"{whose}: hold-out logits contain NaN or infinity")

    def score_of(self, logits_NC: Tensor, whose: str) -> float:
        """Return the score of hold-out logits, by default correct ones; errors as in `check`."""
        self.check(logits_NC, whose)
        return self.points(logits_NC, self.labels_N.to(logits_NC.device))

    @cached_property
    def individual_scores(self) -> tuple[float, ...]:
        """Return each model's hold-out score (`points`), by default its count of correct images."""
        return tuple(self.points(x, self.labels_N.to(x.device)) for x in self.logits)

    @cached_property
    def by_score(self) -> tuple[int, ...]:
        """Return the ingredients' indices, best hold-out score first (ties: see `best_first`)."""
        return tuple(best_first(self.individual_scores))

    def soup(self, method: str, picks: Sequence[int], space: str = "weights", trace: Sequence[Any] = ()) -> Soup:
        """Return a Soup, the mean of the ingredients with indices `picks`, which may repeat."""
        members = list(dict.fromkeys(picks))
        return Soup(
            method=method,
            ingredients=tuple(self.ingredients[i].id for i in members),
            hashes=tuple(self.ingredients[i].sha256 for i in members),
            coefficients={EVERYTHING: [picks.count(i) / len(picks) for i in members]},
            space=space,
            trace=tuple(trace),
        )


def model_gradient(model: nn.Module, state: State, beta: float, inputs_B: Inputs, labels_B: Tensor) -> Gradient:
    """Return the cross-entropy of beta * model(inputs_B), its derivatives by beta and the weights.

    The weights are `state`; the model's own do not change. Runs on the device of labels_B. Only
    parameters have derivatives, on the device of their tensors in `state`. Raises ValueError
    for a model in training mode, whose dropout and batch statistics would change the loss.
    """
    if model.training:
        raise ValueError(f"{type(model).__name__} is in training mode; call model.eval() first")
    moved = {key: tensor.detach().to(labels_B.device) for key, tensor in state.items()}
    weights = {key: moved[key].requires_grad_() for key, _ in model.named_parameters()}
    with torch.enable_grad():
        logits_BC = call_with(model, moved, inputs_B)
        scale = torch.tensor(beta, dtype=logits_BC.dtype, device=logits_BC.device, requires_grad=True)
        loss = F.cross_entropy(scale * logits_BC, labels_B)
        by_beta, *by_weights = torch.autograd.grad(loss, [scale, *weights.values()], allow_unused=True)
    named = zip(weights, by_weights, strict=True)
    gradients = {k: g.to(state[k].device) for k, g in named if g is not None}  # None: unused
    return float(loss.detach()), float(by_beta), gradients
