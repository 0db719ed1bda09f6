"""A labelled hold-out set, kept in memory so that many models can be evaluated on it."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from xxhash import xxh3_128

Inputs = Tensor | Mapping[str, Tensor]  # of a batch; a mapping is by argument name
Count = tuple[int | None, int]  # images right (None: certainly fewer than needed), images seen
LABELS = ("labels", "label")  # the names of the labels in a mapping


class Holdout:
    """Hold-out images and labels, and a model into which weights are loaded for evaluation.

    loader: yields batches (inputs, labels), or mappings with a key `labels`, and is read once.
    inputs are a tensor, or for Hugging Face models a mapping of tensors by argument name, of any
    dtype. prepare: applied to the inputs of each batch on the model's device. The model returns (B,
    C) logits or an object with `.logits`. early: whether `count` may stop once a model is sure to
    be rejected. `seen` is the number of images evaluated, `skipped` the number saved by stopping.
    Raises ValueError for an empty loader, labels that are not integers, inputs and labels of
    different lengths, and, at the first evaluation, labels outside the model's classes.

        holdout = soup.Holdout(model, loader, prepare=lambda images_BCHW: images_BCHW / 255)
        chosen = soup.greedy(["a.pt", "b.pt"], holdout)
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        prepare: Callable[[Inputs], Inputs] | None = None,
        batch_size: int = 256,
        early: bool = True,
    ) -> None:
        if not isinstance(model, nn.Module) or next(model.parameters(), None) is None:
            raise ValueError(
                f"the hold-out's model is a {type(model).__name__} without weights to load; give an nn.Module"
            )
        if batch_size < 1:
            raise ValueError(f"the hold-out's batch_size is {batch_size}; expected at least 1")
        try:
            batches = iter(loader)
        except TypeError as error:
            what = f"the hold-out's loader is a {type(loader).__name__}"
            raise ValueError(f"{what}; expected batches (inputs, labels)") from error
        inputs, labels = [], []
        for position, batch in enumerate(batches):
            inputs_B, labels_B = unpacked(batch, model, f"hold-out batch {position}")
            inputs.append(inputs_B)
            labels.append(labels_B.cpu())
        if not labels:
            raise ValueError("the hold-out's loader is empty")
        self.model, self.prepare, self.batch_size, self.early = model.eval(), prepare, batch_size, early
        try:
            self.inputs, self.labels_N = _joined(inputs), torch.cat(labels)
        except (RuntimeError, KeyError) as error:
            raise ValueError(f"the hold-out's batches have inputs of different shapes or names: {error}") from error
        self.order_N = torch.arange(len(self.labels_N))
        self.seen = self.skipped = 0
        self.classes = 0  # of the model's logits, once they are known

    def __len__(self) -> int:
        return len(self.labels_N)

    def digest(self) -> str:
        """Return a hash of what logits depend on but the weights: images, model, `prepare`.

        `prepare` is represented by its result on the first batch.
        """
        found = xxh3_128(re.sub(" at 0x[0-9a-f]+", "", repr(self.model)).encode())
        for inputs in (self.inputs, self.batch(torch.arange(min(self.batch_size, len(self))))[0]):
            for tensor in _tensors(inputs):
                found.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
                found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return found.hexdigest()

    def hardest_first(self, logits: Sequence[Tensor]) -> None:
        """Let `count` start with the images that most models misclassify, by their `logits`."""
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
                output = call(self.model, inputs_B)
            self.seen += len(index_B)
            logits_BC = _logits_in(output).cpu()
            if logits_BC.ndim != 2 or len(logits_BC) != len(index_B):
                raise ValueError(f"the model's output is {tuple(logits_BC.shape)}; expected ({len(index_B)}, classes)")
            if logits_BC.shape[1] != self.classes:
                check_labels(self.labels_N, logits_BC.shape[1])
                self.classes = logits_BC.shape[1]
            yield index_B, logits_BC


def check_labels(labels_N: Tensor, classes: int) -> None:
    """Raise ValueError unless the labels are integers, one per image, from 0 to classes - 1."""
    if labels_N.is_floating_point() or labels_N.dtype == torch.bool:
        raise ValueError(f"labels are {str(labels_N.dtype).removeprefix('torch.')}, expected whole numbers")
    if labels_N.ndim != 1:
        raise ValueError(f"labels have the shape {tuple(labels_N.shape)}, expected one whole number for each image")
    if len(labels_N) and not 0 <= int(labels_N.min()) <= int(labels_N.max()) < classes:
        odd = int(labels_N.min()) if int(labels_N.min()) < 0 else int(labels_N.max())
        why = "leave unlabelled images out" if odd < 0 else "do the labels begin at 1, not 0?"
        raise ValueError(f"label {odd} is outside the model's classes 0 to {classes - 1}: {why}")


def unpacked(batch: Any, model: nn.Module, where: str) -> tuple[Inputs, Tensor]:
    """Return a batch's (inputs, labels); for other forms a ValueError that starts with `where`."""
    if isinstance(batch, Mapping):
        name = next((n for n in LABELS if n in batch), None)
        if name is None:
            expected = "the key `labels`"
            raise ValueError(f"{where}: contains {', '.join(map(str, batch))}; expected {expected}")
        batch = _by_name({k: v for k, v in batch.items() if k != name}, model), batch[name]
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        got = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else f"a {type(batch).__name__}"
        cure = "pass ((x, y) for x, y, *_ in loader), or for several inputs ({name: x, ...}, y)"
        raise ValueError(f"{where}: expected (inputs, labels), got {got}; {cure}")
    given, labels = batch
    inputs = {k: _as_tensor(v) for k, v in given.items()} if isinstance(given, Mapping) else _as_tensor(given)
    labels_B = _as_tensor(labels)
    if not isinstance(labels_B, Tensor) or not all(isinstance(t, Tensor) for t in _tensors(inputs)):
        kinds = ", ".join(type(v).__name__ for v in (*_tensors(inputs), labels_B) if not isinstance(v, Tensor))
        raise ValueError(f"{where}: contains a {kinds}; expected tensors")
    whole = not labels_B.is_floating_point() and labels_B.dtype != torch.bool
    if {len(t) if t.ndim else -1 for t in _tensors(inputs)} != {labels_B.numel()} or labels_B.ndim != 1 or not whole:
        raise ValueError(f"{where}: expected (inputs, whole-number labels) of equal lengths")
    return inputs, labels_B


def inputs_of(batch: Any, model: nn.Module) -> Any:
    """Return the inputs of a loader's batch, which need not have labels."""
    if isinstance(batch, Mapping):
        return _by_name({k: v for k, v in batch.items() if k not in LABELS}, model)
    return _as_tensor(batch[0]) if isinstance(batch, (tuple, list)) and batch else _as_tensor(batch)


def _by_name(inputs: Mapping[str, Any], model: nn.Module) -> Any:
    """Return inputs by argument name, or the only one itself if forward() lacks its name."""
    (name, *others) = inputs or ("",)
    arguments = inspect.signature(model.forward).parameters.values()
    named = any(a.name == name or a.kind is inspect.Parameter.VAR_KEYWORD for a in arguments)
    return inputs if others or named or not name else inputs[name]


def _as_tensor(value: Any) -> Any:
    """Return an array or a list of numbers as a tensor, and anything else unchanged."""
    if isinstance(value, (np.ndarray, list)) and np.asarray(value).dtype.kind in "biuf":
        return torch.from_numpy(np.asarray(value))
    return value


def call(model: nn.Module, inputs: Inputs) -> Any:
    """Return the output of the model for a tensor, or for several by argument name."""
    return model(inputs) if isinstance(inputs, Tensor) else model(**inputs)


def call_with(model: nn.Module, state: Mapping[str, Tensor], inputs: Inputs) -> Tensor:
    """Return the model's (B, C) logits with the weights `state`; its own weights do not change."""
    args, named = ((inputs,), {}) if isinstance(inputs, Tensor) else ((), dict(inputs))
    aliases = {k for k, _ in model.named_parameters(remove_duplicate=False)} - dict(model.named_parameters()).keys()
    own = {key: tensor for key, tensor in state.items() if key not in aliases}
    saved = model.state_dict().keys()  # other buffers are constants, such as BERT's position_ids
    own |= {name: buffer for name, buffer in model.named_buffers() if name not in own and name not in saved}
    return _logits_in(torch.func.functional_call(model, own, args, named, strict=True))


def each(inputs_B: Inputs) -> Iterator[Inputs]:
    """Yield each image of a batch of inputs as a batch of one image."""
    for i in range(len(_tensors(inputs_B)[0])):
        yield _map(inputs_B, lambda t, i=i: t[i : i + 1])  # type: ignore[misc]


def _logits_in(output: Any) -> Tensor:
    given = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if not isinstance(given, Tensor):
        expected = "logits, or an object with .logits"
        raise ValueError(f"the model returns a {type(output).__name__}; expected {expected}")
    return given


def _tensors(inputs: Inputs) -> list[Tensor]:
    return [inputs] if isinstance(inputs, Tensor) else list(inputs.values())


def _map(inputs: Inputs, function: Callable[[Tensor], Tensor]) -> Inputs:
    return function(inputs) if isinstance(inputs, Tensor) else {k: function(t) for k, t in inputs.items()}


def _joined(parts: Sequence[Inputs]) -> Inputs:
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat([p for p in parts if isinstance(p, Tensor)])
    return {k: torch.cat([p[k] for p in parts if not isinstance(p, Tensor)]) for k in first}
