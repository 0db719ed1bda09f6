"""Labels and loaders of a hold-out: what is read as it is meant, and what is refused with the way out."""

from collections import UserDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from modelsoups import soup
from modelsoups.soup.batchnorm import reestimate
from modelsoups.soup.holdout import Holdout, call_with, check_labels

X_N2, Y_N = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 1, 1])  # the identity has 2 of 3 right
IDENTITY = {"head.weight": torch.eye(2), "head.bias": torch.zeros(2)}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(pixels)


class Shaped(Net):
    """Its logits in another shape."""

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(pixels)[:, 0]


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(TensorDataset(X_N2, Y_N), batch_size=2),  # gives lists
        [{"pixels": X_N2, "labels": Y_N}],
        [{"image": X_N2, "label": Y_N}],  # no argument of the model: by position
        [UserDict({"pixels": X_N2, "labels": Y_N})],  # as BatchEncoding of transformers
        [(X_N2.numpy(), Y_N.numpy())],
        [(X_N2, [0, 1, 1])],
        [({"pixels": X_N2.numpy()}, Y_N)],
    ],
)
def test_loaders_are_read_as_they_are_meant(loader: Any) -> None:
    assert Holdout(Net(), loader).count(IDENTITY) == (2, 3)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            (X_N2, Y_N, torch.arange(3)),
            r"batch 0: expected \(inputs, labels\), got 3 parts; pass \(\(x, y\) for x, y, \*_",
        ),
        ({"pixels": X_N2, "target": Y_N}, "batch 0: contains pixels, target; expected the key `labels`"),
        ({"labels": Y_N}, "batch 0: expected"),
        ({"pixels": X_N2, "names": ["a", "b", "c"], "labels": Y_N}, "batch 0: contains a list; expected tensors"),
        (X_N2, r"batch 0: expected \(inputs, labels\), got a Tensor"),
        ((X_N2, "abc"), "batch 0: contains a str; expected tensors"),
        ((X_N2, Y_N == 1), "batch 0: expected .inputs, whole-number labels"),
        ((X_N2, Y_N[:, None]), "batch 0: expected .inputs, whole-number labels"),
    ],
)
def test_other_batches_are_refused(batch: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Holdout(Net(), [batch])


def test_arguments_of_another_kind_are_refused() -> None:
    good = [(X_N2, Y_N)]
    with pytest.raises(ValueError, match="batch_size is 0; expected at least 1"):
        Holdout(Net(), good, batch_size=0)
    for model in (None, nn.Flatten()):
        with pytest.raises(ValueError, match="without weights to load"):
            Holdout(model, good)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="inputs of different shapes or names"):
        Holdout(Net(), [*good, (torch.ones(3, 5), Y_N)])
    with pytest.raises(ValueError, match=r"the model's output is \(3,\); expected \(3, classes\)"):
        Holdout(Shaped(), good).count(IDENTITY)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 2, 2], "label 2 is outside the model's classes 0 to 1: do the labels begin at 1"),
        ([-1, -1, -1], "label -1 is outside the model's classes 0 to 1: leave unlabelled images out"),
    ],
)
def test_labels_outside_the_classes_are_refused(labels: list[int], message: str) -> None:
    labels_N, states = torch.tensor(labels), [IDENTITY, {k: v.clone() for k, v in IDENTITY.items()}]
    for choose in (soup.greedy, soup.pruned, soup.learned):
        with pytest.raises(ValueError, match=message):
            choose(states, Holdout(Net(), [(X_N2, labels_N)]))
    for combine in (soup.ensemble, soup.greedy_ensemble, soup.learned_ensemble, soup.calibrated):
        with pytest.raises(ValueError, match=message):
            combine({"a": X_N2, "b": X_N2}, labels_N)


def test_what_is_no_class_by_its_type() -> None:
    check_labels(torch.tensor([0, 1], dtype=torch.uint8), 2)
    for labels_N in (torch.tensor([True, False]), torch.tensor([0.0, 1.0])):
        with pytest.raises(ValueError, match=r"labels are (bool|float32), expected whole numbers"):
            check_labels(labels_N, 2)


def test_an_evaluator_may_change_the_state_that_it_is_given() -> None:
    """Greedy of 3 and 1 by their number: 3 alone, as (3 + 1) / 2 is less; the user's own states stay."""
    states = [{"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}]

    def evaluate(state: dict[str, Tensor]) -> float:
        found = float(state.pop("w").mul_(10)) / 10
        state.clear()
        return found

    chosen = soup.greedy(states, evaluate)
    assert chosen.ingredients == ("state 1",)
    assert [s["w"].item() for s in states] == [1, 3]
    assert soup.pruned(states, evaluate).ingredients == ("state 1",)


def test_training_images_may_come_in_mappings() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten())
    images = [torch.full((2, 1, 2, 2), v) for v in (1.0, 3.0)]
    data = Holdout(model, [(images[0], torch.zeros(2).long())])
    fresh = reestimate(model.state_dict(), data, [{"image": x, "label": torch.zeros(2)} for x in images])
    assert fresh.statistics["0.running_mean"].tolist() == [2]
    with pytest.raises(ValueError, match="batch 0 of training images contains a str; expected a tensor"):
        reestimate(model.state_dict(), data, ["image"])


@pytest.mark.parametrize("loader", [3, None])
def test_a_loader_is_something_that_gives_batches(loader: Any) -> None:
    with pytest.raises(ValueError, match=r"the hold-out's loader is a (int|NoneType); expected batches"):
        Holdout(Net(), loader)


def test_logits_are_found_in_a_mapping_and_nothing_else_is_taken_for_them() -> None:
    class Mapped(Net):
        def forward(self, pixels: Tensor) -> Any:
            return {"logits": self.head(pixels)}

    class Tuple(Net):
        def forward(self, pixels: Tensor) -> Any:
            return (self.head(pixels),)

    assert Holdout(Mapped(), [(X_N2, Y_N)]).count(IDENTITY) == (2, 3)
    with pytest.raises(ValueError, match=r"the model returns a tuple; expected logits, or an object with \.logits"):
        Holdout(Tuple(), [(X_N2, Y_N)]).count(IDENTITY)
    with pytest.raises(ValueError, match=r"labels have the shape \(3, 1\), expected one whole number for each image"):
        check_labels(Y_N[:, None], 2)


class Shifted(nn.Linear):
    """A model with a buffer that its state dict does not contain, as BERT's position_ids."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.register_buffer("shift", torch.ones(2), persistent=False)

    def forward(self, inputs_BD: Tensor) -> Tensor:
        return super().forward(inputs_BD) + self.shift


def test_a_model_is_called_with_weights_and_its_own_constants() -> None:
    model, inputs_BD = Shifted(), torch.eye(2)
    state = {"weight": torch.zeros(2, 2), "bias": torch.tensor([1.0, 2.0])}
    assert call_with(model, state, inputs_BD).tolist() == [[2.0, 3.0], [2.0, 3.0]]
    with pytest.raises(RuntimeError, match="bias"):
        call_with(model, {"weight": torch.zeros(2, 2)}, inputs_BD)
