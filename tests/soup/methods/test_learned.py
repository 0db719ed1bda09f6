"""Learned soups: the gradient against autograd through the mixed weights, one step by hand, and what is refused."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from handmade import Network, margin_pool, network_pool, network_states
from torch import Tensor

from modelsoups.checkpoints.states import averaged
from modelsoups.soup.methods import METHODS, model_gradient
from modelsoups.soup.methods.learned import loss_by_alpha
from modelsoups.weights.coefficient_gradients import Stack
from modelsoups.weights.state_dicts import layer_of, mix

LAYERS = ["blocks.0", "blocks.1", "norm", "head"]


def by_autograd(groups: list[str], raw_GK: Tensor, beta: Tensor, x_BD: Tensor, labels_B: Tensor) -> list[Tensor]:
    """d loss / d (alpha, raw, beta) of equation 2, differentiating through softmax and the mixed weights."""
    states = network_states(raw_GK.shape[1])
    alpha_GK = raw_GK.softmax(dim=1)
    mixed = {}
    for key, first in states[0].items():
        row = groups.index(layer_of(key)) if layer_of(key) in groups else 0
        values = [s[key] for s in states]
        mixed[key] = sum(a * v for a, v in zip(alpha_GK[row], values, strict=True)) if averaged(first) else first
        if key.startswith("norm.running"):
            mixed[key] = mixed[key].detach()  # mixed, but PyTorch does not differentiate by them
    logits_BC = torch.func.functional_call(Network(), mixed, (x_BD,))
    loss = F.cross_entropy(beta * logits_BC, labels_B)
    return [loss, *torch.autograd.grad(loss, [alpha_GK, raw_GK, beta])]


@pytest.mark.parametrize("groups", [["*"], LAYERS], ids=["one alpha", "by layer"])
def test_the_gradient_is_autograd_through_the_mixed_weights(groups: list[str]) -> None:
    generator = torch.Generator().manual_seed(2)
    states = network_states(4)
    raw_GK = torch.randn(len(groups), 4, generator=generator, dtype=torch.float64, requires_grad=True)
    beta = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    x_BD = torch.randn(32, 3, generator=generator, dtype=torch.float64)
    labels_B = torch.randint(4, (32,), generator=generator)
    loss, by_alpha_GK, by_raw_GK, by_beta = by_autograd(groups, raw_GK, beta, x_BD, labels_B)

    alpha_GK = raw_GK.softmax(dim=1)
    coefficients = dict(zip(groups, alpha_GK.tolist(), strict=True))
    got = model_gradient(Network(), mix(states, coefficients), 1.7, x_BD, labels_B)
    assert got[0] == pytest.approx(loss.item(), rel=1e-10)
    assert got[1] == pytest.approx(by_beta.item(), rel=1e-9)
    ours_GK = loss_by_alpha(Stack(states), groups, got[2])
    torch.testing.assert_close(ours_GK, by_alpha_GK, rtol=1e-9, atol=1e-12)
    raw_GK.grad = None
    alpha_GK.backward(ours_GK)
    torch.testing.assert_close(raw_GK.grad, by_raw_GK, rtol=1e-6, atol=1e-12)


def test_the_first_step_by_hand() -> None:
    """a has margins 2, b has -1: the mean is 1/2. Adam's first step is lr times the sign of the gradient.

    More of a lowers the loss, and so does a larger beta: raw = (0.1, -0.1), alpha_a = 1 / (1 + e^-0.2), beta = 1.1.
    The loss before is log(1 + e^-0.5).
    """
    soup = METHODS["learned"](margin_pool((2, 2), (-1, -1)), epochs=1, batch_size=2)
    assert soup.coefficients["*"] == pytest.approx([1 / (1 + math.exp(-0.2)), 1 / (1 + math.exp(0.2))], rel=1e-6)
    assert soup.beta == pytest.approx(1.1, rel=1e-6)
    assert len(soup.trace) == 1
    assert soup.trace[0] == {"step": 0, "epoch": 0, "loss": pytest.approx(math.log(1 + math.exp(-0.5))), "beta": 1.0}
    other_rate = METHODS["learned"](margin_pool((2, 2), (-1, -1)), epochs=1, batch_size=2, lr=0.3)
    assert other_rate.beta == pytest.approx(1.3, rel=1e-6)


def by_stacking(pool_size: int, groups: list[str], epochs: int, batch_size: int, seed: int) -> tuple[Tensor, float]:
    """The same optimization with autograd through all models at once, as the paper describes it."""
    raw_GK = torch.zeros(len(groups), pool_size, dtype=torch.float64, requires_grad=True)
    beta = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([raw_GK, beta], lr=0.1, weight_decay=0)
    data = torch.Generator().manual_seed(1)  # as handmade.network_pool
    x_ND = torch.randn(40, 3, generator=data, dtype=torch.float64)
    labels_N = torch.randint(4, (40,), generator=data)
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for index_B in torch.randperm(40, generator=order).split(batch_size):
            _, _, raw_GK.grad, beta.grad = by_autograd(groups, raw_GK, beta, x_ND[index_B], labels_N[index_B])
            optimizer.step()
    return raw_GK.detach().softmax(dim=1), beta.item()


@pytest.mark.parametrize(("method", "groups"), [("learned", ["*"]), ("learned_layers", LAYERS)])
def test_whole_runs_are_those_of_autograd(method: str, groups: list[str]) -> None:
    soup = METHODS[method](network_pool(3), epochs=3, batch_size=16, seed=5)
    alpha_GK, beta = by_stacking(3, groups, 3, 16, 5)
    assert list(soup.coefficients) == groups
    got_GK = torch.tensor([soup.coefficients[g] for g in groups], dtype=torch.float64)
    torch.testing.assert_close(got_GK, alpha_GK, rtol=1e-6, atol=1e-9)
    assert soup.beta == pytest.approx(beta, rel=1e-6)
    assert len(soup.trace) == 3 * 3, "40 images in batches of 16: three a pass"


def test_learning_lowers_the_loss_and_repeats() -> None:
    pool = network_pool(3)
    soups = [METHODS["learned_layers"](pool, epochs=20, batch_size=40) for _ in range(2)]
    assert soups[0] == soups[1]
    assert soups[0].trace[-1]["loss"] < soups[0].trace[0]["loss"]
    assert METHODS["learned"](pool, batch_size=8, seed=1) != METHODS["learned"](pool, batch_size=8, seed=2)


def test_one_ingredient_keeps_all_of_it() -> None:
    assert METHODS["learned"](margin_pool((2, -1)), epochs=1).coefficients == {"*": [1.0]}


def test_what_learned_soups_refuse() -> None:
    pool = margin_pool((2, 2), (-1, -1))
    with pytest.raises(ValueError, match="learned_layers: this pool cannot compute gradients"):
        METHODS["learned_layers"](replace(pool, gradient=None))
    for option in ({"epochs": 0}, {"batch_size": 0}, {"lr": 0.0}, {"lr": float("nan")}):
        with pytest.raises(ValueError, match="expected all of them above 0"):
            METHODS["learned"](pool, **option)
    with pytest.raises(ValueError, match="the loss is nan at step 0"):
        METHODS["learned"](replace(pool, gradient=lambda s, b, i: (float("nan"), 0.0, {})))


# ---- model_gradient ----


def test_model_gradient_leaves_model_and_state_alone() -> None:
    model, state = Network(), network_states(1)[0]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x_BD, labels_B = torch.ones(2, 3, dtype=torch.float64), torch.tensor([0, 1])
    with torch.no_grad():  # pipelines may call it from there
        _, _, gradients = model_gradient(model, state, 1.0, x_BD, labels_B)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(v.requires_grad for v in state.values())
    assert set(gradients) == {k for k, _ in model.named_parameters()}


def test_unused_tensors_have_no_gradient_and_training_mode_is_refused() -> None:
    class Idle(torch.nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 2)
            self.unused = torch.nn.Parameter(torch.ones(2))

    model = Idle().eval()
    args = (dict(model.state_dict()), 1.0, torch.ones(2, 3), torch.tensor([0, 1]))
    assert set(model_gradient(model, *args)[2]) == {"weight", "bias"}
    with pytest.raises(ValueError, match="Idle is in training mode"):
        model_gradient(model.train(), *args)
