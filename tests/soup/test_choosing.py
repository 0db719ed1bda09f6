"""Greedy and learned soups over any checkpoints: the same choice with early rejection as without; what is refused."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modelsoups import soup
from modelsoups.soup.holdout import Holdout


class Margins(nn.Module):
    """The model *is* its hold-out logits: image n is right when its margin is positive."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.margin = nn.Parameter(torch.zeros(images))

    def forward(self, index_B: Tensor) -> Tensor:
        margin_B = self.margin[index_B]
        return torch.stack([margin_B, torch.zeros_like(margin_B)], dim=1)


def holdout(images: int, batch_size: int = 2) -> Holdout:
    batch = (torch.arange(images), torch.zeros(images, dtype=torch.long))
    return Holdout(Margins(images), [batch], batch_size=batch_size)


def states(models: list[list[int]]) -> list[dict[str, Tensor]]:
    return [{"margin": torch.tensor(m, dtype=torch.float32)} for m in models]


pools = st.integers(1, 9).flatmap(
    lambda n: st.lists(st.lists(st.integers(-9, 9).filter(bool), min_size=n, max_size=n), min_size=1, max_size=6)
)


@settings(max_examples=1000, deadline=None)
@given(
    pools, st.booleans(), st.booleans(), st.sampled_from([None, 1, 2]), st.sampled_from([None, 0, 5]), st.integers(1, 4)
)
def test_early_rejection_changes_no_decision(models, strict, replacement, patience, seed, batch_size) -> None:
    """Against a full count of every candidate: the same order, the same members, the same coefficients."""
    data = holdout(len(models[0]), batch_size)

    def full(state: dict[str, Tensor]) -> float:
        with torch.no_grad():
            logits_NC = torch.stack([state["margin"], torch.zeros_like(state["margin"])], dim=1)
        return float((logits_NC.argmax(dim=1) == 0).sum())

    options = {"strict": strict, "replacement": replacement, "patience": patience, "order_seed": seed}
    quick = soup.greedy(states(models), data, **options)
    plain = soup.greedy(states(models), full, **options)
    assert quick.ingredients == plain.ingredients
    assert quick.coefficients == plain.coefficients
    assert [t["kept"] for t in quick.trace] == [t["kept"] for t in plain.trace]
    assert all(t["correct"] in (None, p["correct"]) for t, p in zip(quick.trace, plain.trace, strict=True))
    evaluations = len(models) + len(quick.trace) - 1
    assert data.seen + data.skipped == evaluations * len(data)


def test_early_rejection_saves_forward_passes() -> None:
    """b is wrong on image 3, which a gets right: of 4 images one batch of 1, the hardest, is enough to refuse it."""
    data = holdout(4, batch_size=1)
    chosen = soup.greedy(states([[1, 1, 1, 1], [1, 1, 1, -9]]), data)
    assert chosen.ingredients == ("state 0",)
    assert chosen.trace[1] == {
        "ingredient": "state 1", "correct": None, "n": 4, "kept": False, "best": 4, "seen": 1,
    }  # fmt: skip
    assert (data.seen, data.skipped) == (9, 3)


def test_a_tensor_of_one_number_is_a_score() -> None:
    assert soup.greedy(states([[1], [3]]), lambda state: state["margin"].sum()).ingredients == ("state 1",)


def test_several_metrics_of_which_none_may_fall() -> None:
    scores = {(1.0,): (0.9, 0.5), (3.0,): (0.8, 0.4), (2.0,): (0.95, 0.4)}

    def evaluate(state: dict[str, Tensor]) -> tuple[float, float]:
        return scores[tuple(state["margin"].tolist())]

    assert soup.greedy(states([[1], [3]]), evaluate).ingredients == ("state 0",)
    scores[(2.0,)] = (0.9, 0.6)
    assert soup.greedy(states([[1], [3]]), evaluate).ingredients == ("state 0", "state 1")


def raises(state: dict[str, Tensor]) -> float:
    raise KeyError("no such image")


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        (raises, "evaluate raised KeyError for state 0: 'no such image'"),
        (lambda state: float("nan"), "evaluate returned nan for state 0; expected a finite number"),
        (lambda state: "good", "evaluate returned 'good' for state 0"),
        (lambda state: None, "evaluate returned None for state 0"),
        (lambda state: True, "evaluate returned True for state 0"),
        (lambda state: [], r"evaluate returned \[\] for state 0"),
        (lambda state: torch.ones(2), r"evaluate returned tensor\(\[1., 1.\]\) for state 0"),
        (lambda state: [0.5, float("inf")], r"evaluate returned \[0.5, inf\] for state 0"),
    ],
)
def test_an_evaluator_that_fails_is_named(evaluate, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        soup.greedy(states([[1], [2]]), evaluate)


def test_a_checkpoint_that_does_not_fit_or_gives_nan_is_named() -> None:
    with pytest.raises(ValueError, match="state 0 does not fit the model"):
        soup.greedy(states([[1], [2]]), holdout(3))
    bad = [{"margin": torch.tensor([1.0, 2.0])}, {"margin": torch.tensor([1.0, float("nan")])}]
    with pytest.raises(ValueError, match="state 1: hold-out logits contain NaN"):
        soup.greedy(bad, holdout(2))


def test_a_holdout_checks_its_loader() -> None:
    for loader, message in [
        ([], "loader is empty"),
        ([(torch.ones(3), torch.ones(2).long())], "batch 0: expected"),
        ([(torch.ones(3), torch.ones(3))], "batch 0: expected"),
    ]:
        with pytest.raises(ValueError, match=message):
            Holdout(Margins(3), loader)


def regression(images: int = 60) -> tuple[nn.Module, Holdout, list[dict[str, Tensor]]]:
    """A network with tied names of arguments as Hugging Face has them, and noisy copies of the one that labels."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(4, 8), nn.Linear(8, 3)])

        def forward(self, pixels: Tensor) -> Tensor:
            return self.blocks[1](torch.tanh(self.blocks[0](pixels)))

    model = Named()
    x_ND = torch.randn(images, 4, generator=generator)
    with torch.no_grad():
        labels_N = model(x_ND).argmax(dim=1)
    noisy = [
        {k: v + s * torch.randn(v.shape, generator=generator) for k, v in model.state_dict().items()}
        for s in (0.05, 1.0)
    ]
    return model, Holdout(model, [({"pixels": x_ND}, labels_N)]), noisy


@pytest.mark.parametrize("by", ["all", "layer", "tensor", "free"])
def test_learned_soups_prefer_the_good_ingredient(by: str, tmp_path: Path) -> None:
    _, data, noisy = regression()
    chosen = soup.learned(noisy, data, by=by, epochs=25, lr=0.1, batch_size=30)
    assert chosen.trace[-1]["loss"] < chosen.trace[0]["loss"]
    if by in ("all", "free"):
        assert chosen.coefficients["*"][0] > 2 * chosen.coefficients["*"][1]
    right = data.count(soup.mixed(chosen, noisy))[0]
    assert right > data.count(soup.mixed(soup.uniform(noisy), noisy))[0]
    groups = {"all": 1, "layer": 2, "tensor": 5, "free": 1}
    assert len(chosen.coefficients) == groups[by]
    soup.mix(chosen, tmp_path / "soup.safetensors", noisy)
    mixed = soup.mixed(chosen, noisy)
    assert all(torch.equal(v, mixed[k]) for k, v in soup.load(tmp_path / "soup.safetensors").items())
    with pytest.raises(ValueError, match="by=laye; expected one of all, layer, tensor, free"):
        soup.learned(noisy, data, by="laye")


@pytest.mark.parametrize(
    ("choose", "options"),
    [(soup.mehl, {"epochs": 25, "lr": 0.1, "batch_size": 30}), (soup.radin, {}), (soup.soce, {"categories": 2})],
)
def test_newer_soups_of_any_checkpoints(choose, options: dict, tmp_path: Path) -> None:
    _, data, noisy = regression()
    chosen = choose({"good": noisy[0], "bad": noisy[1]}, data, **options)
    by_name = {"good": noisy[0], "bad": noisy[1]}
    sources = {name: by_name[name] for name in chosen.ingredients}
    assert chosen.ingredients[0] == "good"
    right = data.count(soup.mixed(chosen, sources))[0]
    assert right > data.count(soup.mixed(soup.uniform(by_name), by_name))[0]
    soup.mix(chosen, tmp_path / "soup.safetensors", sources)
    assert data.count(soup.load(tmp_path / "soup.safetensors"))[0] == right


class Tied(nn.Module):
    """Two layers with the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x_BD: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x_BD)))


@pytest.mark.parametrize(
    ("choose", "options"), [(soup.mehl, {}), (soup.learned, {"by": "tensor"}), (soup.learned, {"by": "layer"})]
)
def test_tied_tensors_stay_equal_whatever_their_order(choose, options: dict) -> None:
    """They are one parameter, but their gradient has one of the two names, and only this row is learned."""
    torch.manual_seed(0)
    data = Holdout(Tied(), [(torch.randn(8, 3), torch.arange(8) % 3)])
    weights = [torch.randn(3, 3) for _ in range(3)]
    for names in (("first.weight", "second.weight"), ("second.weight", "first.weight")):
        models = [dict.fromkeys(names, weight) for weight in weights]
        mixed = soup.mixed(choose(models, data, **options), models)
        assert torch.equal(mixed["first.weight"], mixed["second.weight"])
        assert not torch.allclose(mixed["first.weight"], torch.stack(weights).mean(dim=0), atol=1e-3)


def test_pruned_by_hand() -> None:
    """a + b + c = (1, -2, 3)/3: 2 of 3 right. The worst is b (1 right); without it (5, 3, 1)/2: 3, so b leaves."""
    chosen = soup.pruned(states([[4, 1, -1], [-4, -5, 2], [1, 2, 2]]), holdout(3))
    assert chosen.ingredients == ("state 0", "state 2") or chosen.ingredients == ("state 2",)
    assert chosen.trace[0]["correct"] == 2
    assert chosen.trace[1] == {"ingredient": "state 1", "correct": 3, "n": 3, "kept": False, "best": 3}


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.lists(st.integers(-9, 9), min_size=n, max_size=n), min_size=1)))
def test_a_pruned_soup_is_never_below_the_uniform_one(models: list[list[int]]) -> None:
    models = models[:6]
    data = holdout(len(models[0]))
    pruned, uniform = soup.pruned(states(models), data), soup.uniform(states(models))
    every = {f"state {n}": s for n, s in enumerate(states(models))}
    right = [data.count(soup.mixed(c, [every[i] for i in c.ingredients]))[0] for c in (pruned, uniform)]
    assert right[0] >= right[1]
