"""A labelled hold-out set, kept in memory so that many models can be evaluated on it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Tensor | Mapping[str, Tensor]  # one batch: a tensor, or tensors by argument name
Count = tuple[int | None, int]  # images correct (None: certainly fewer than needed), images seen


class Holdout:
    """Hold-out images and labels, and a model into which weights are loaded for evaluation.

    loader: yields batches (inputs, labels) and is read once. inputs are a tensor, or for
    Hugging Face models a mapping of tensors by argument name, of any dtype. prepare: applied to the
    inputs of each batch on the model's device. The model returns (B, C) logits or an object with
    `.logits`. early: whether `count` may stop once a model is sure to be rejected. `seen` is the number of images
    evaluated, `skipped` the number saved by stopping. Raises ValueError for an empty loader,
    labels that are not integers, or inputs and labels of different lengths.

        holdout = soup.Holdout(model, loader, prepare=lambda images_BCHW: images_BCHW / 255)
        chosen = soup.greedy(["a.pt", "b.pt"], holdout)
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable[tuple[Inputs, Tensor]],
        prepare: Callable[[Inputs], Inputs] | None = None,
        batch_size: int = 256,
        early: bool = True,
    ) -> None:
        inputs, labels = [], []
        for position, (inputs_B, labels_B) in enumerate(loader):
            lengths = {len(t) for t in _tensors(inputs_B)}
            if lengths != {len(labels_B)} or labels_B.ndim != 1 or labels_B.is_floating_point():
                raise ValueError(f"hold-out batch {position}: expected (inputs, 1-D integer labels) of equal length")
            inputs.append(inputs_B)
            labels.append(labels_B.cpu())
        if not labels:
            raise ValueError("the hold-out's loader is empty")
        self.model, self.prepare, self.batch_size, self.early = model.eval(), prepare, batch_size, early
        self.inputs, self.labels_N = _joined(inputs), torch.cat(labels)
        self.order_N = torch.arange(len(self.labels_N))
        self.seen = self.skipped = 0

    def __len__(self) -> int:
        return len(self.labels_N)

    def hardest_first(self, logits: Sequence[Tensor]) -> None:
        """Let the method `count` start with images that most models misclassify, by their `logits`."""
        wrong_N = torch.stack([x.argmax(dim=1) != self.labels_N for x in logits]).sum(dim=0)
        self.order_N = wrong_N.argsort(descending=True, stable=True)

    def logits(self, state: Mapping[str, Tensor]) -> Tensor:
        """Return the (N, C) logits with these weights, on the CPU, in the order of the loader."""
        rows = [logits_BC for _, logits_BC in self._batches(state)]
        logits_NC = torch.empty(len(self), rows[0].shape[1], dtype=rows[0].dtype)
        logits_NC[self.order_N] = torch.cat(rows)
        return logits_NC

    def count(self, state: Mapping[str, Tensor], needed: int = 0) -> Count:
        """Return how many images are correct at top 1, and how many were evaluated.

        If `early`, it stops once `needed` correct images are out of reach, and the first number is
        None. Raises ValueError if a logit is not finite.
        """
        correct = seen = 0
        for index_B, logits_BC in self._batches(state):
            if not bool(torch.isfinite(logits_BC).all()):
                raise ValueError("hold-out logits contain NaN or infinity")
            correct += int((logits_BC.argmax(dim=1) == self.labels_N[index_B]).sum())
            seen += len(index_B)
            if self.early and correct + len(self) - seen < needed:
                self.skipped += len(self) - seen
                return None, seen
        return correct, seen

    def batch(self, index_B: Tensor) -> tuple[Inputs, Tensor]:
        """Return prepared inputs and labels of images `index_B`, on the model's device."""
        device = next(self.model.parameters()).device
        inputs = _map(self.inputs, lambda t: t[index_B].to(device))
        return (self.prepare(inputs) if self.prepare else inputs), self.labels_N[index_B].to(device)

    def _batches(self, state: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        self.model.load_state_dict(dict(state))
        for index_B in self.order_N.split(self.batch_size):
            with torch.inference_mode():
                inputs_B = self.batch(index_B)[0]
                output = self.model(inputs_B) if isinstance(inputs_B, Tensor) else self.model(**inputs_B)
            self.seen += len(index_B)
            yield index_B, _logits_in(output).cpu()


def call_with(model: nn.Module, state: Mapping[str, Tensor], inputs: Inputs) -> Tensor:
    """Return the model's (B, C) logits with the weights `state`; its own weights do not change."""
    args, named = ((inputs,), {}) if isinstance(inputs, Tensor) else ((), dict(inputs))
    aliases = {k for k, _ in model.named_parameters(remove_duplicate=False)} - dict(model.named_parameters()).keys()
    own = {key: tensor for key, tensor in state.items() if key not in aliases}
    return _logits_in(torch.func.functional_call(model, own, args, named, strict=True))


def each(inputs_B: Inputs) -> Iterator[Inputs]:
    """Yield each image of a batch of inputs as a batch of one image."""
    for i in range(len(_tensors(inputs_B)[0])):
        yield _map(inputs_B, lambda t, i=i: t[i : i + 1])  # type: ignore[misc]


def _logits_in(output: Any) -> Tensor:
    logits_BC: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits_BC


def _tensors(inputs: Inputs) -> list[Tensor]:
    return [inputs] if isinstance(inputs, Tensor) else list(inputs.values())


def _map(inputs: Inputs, function: Callable[[Tensor], Tensor]) -> Inputs:
    return function(inputs) if isinstance(inputs, Tensor) else {k: function(t) for k, t in inputs.items()}


def _joined(parts: Sequence[Inputs]) -> Inputs:
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat([p for p in parts if isinstance(p, Tensor)])
    return {k: torch.cat([p[k] for p in parts if not isinstance(p, Tensor)]) for k in first}
