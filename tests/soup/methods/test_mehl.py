"""MEHL-Soup+: numbers of the authors' own code, one step by hand, and what is refused."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from handmade import ingredient, margin_pool, network_pool
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modelsoups.soup.methods import METHODS, Pool, model_gradient
from modelsoups.soup.methods.mehl import clipping, learning_rates
from modelsoups.weights.state_dicts import mix

mehl = METHODS["mehl"]


class Plain(nn.Module):
    """Three linear layers without buffers; the weights' order is that of the authors' vector."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 4)])
        self.head = nn.Linear(4, 3)

    def forward(self, x_BD: Tensor) -> Tensor:
        for block in self.blocks:
            x_BD = torch.tanh(block(x_BD))
        return self.head(x_BD)


def plain_pool(count: int = 5, images: int = 20) -> Pool:
    """Models around a common one, in float32."""
    model, generator = Plain().eval(), torch.Generator().manual_seed(0)
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    base = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    states = [
        {key: tensor + 0.5 * torch.randn(tensor.shape, generator=generator) for key, tensor in base.items()}
        for _ in range(count)
    ]
    generator = torch.Generator().manual_seed(1)
    x_ND, labels_N = torch.randn(images, 3, generator=generator), torch.randint(3, (images,), generator=generator)

    def evaluate(state: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            return torch.func.functional_call(model, dict(state), (x_ND,))

    return Pool(
        ingredients=tuple(ingredient(str(i)) for i in range(count)),
        logits=tuple(map(evaluate, states)),
        labels_N=labels_N,
        state=states.__getitem__,
        evaluate=evaluate,
        gradient=lambda state, beta, index_B: model_gradient(model, state, beta, x_ND[index_B], labels_N[index_B]),
    )


# The weights at the end of MEHL_soup_layer.py of github.com/nblt/MEHL-Soup (commit 51fe396), recorded on
# 2026-11-30 with torch 2.15 on the CPU, for the models and images of `plain_pool`, models in the order
# 0 2 4 3 1 (that of seed 7) and images in the order of a torch.Generator with seed 7:
#   --arch tiny-vit --optimizer adamw --lr 0.05 --wd 0 --cosine-lr --epochs 3 --model_batch 2 --models_epochs 1
# with 8 images a batch. "vit" in the name of the architecture turns clipping on, as for the 72 models.
AUTHORS = {
    "blocks.0.weight": [
        1.32789, -0.604865, -2.384306, 0.265785, -1.23284, -0.988589,
        0.521365, 0.897637, -0.493353, -0.486508, -0.137648, 0.546518,
    ],
    "blocks.0.bias": [-0.806262, 0.128098, -2.048128, 0.722032],
    "blocks.1.weight": [
        -0.861971, 0.125311, -0.737726, -0.273474, 0.380896, -0.053525, 0.745058, 0.225192,
        0.38904, 1.019922, -0.096274, -0.35573, 0.533898, 2.401536, -1.758049, -1.678385,
    ],
    "blocks.1.bias": [0.523892, 0.651145, -1.299426, -1.314427],
    "head.weight": [
        -0.136286, -0.644258, 0.337566, -1.507164, 0.495554, 0.519377,
        -2.432785, 0.508827, -1.123475, -0.317784, 0.528117, -0.62424,
    ],
    "head.bias": [0.442156, -0.751904, 0.622707],
}  # fmt: skip


def test_the_weights_are_those_of_the_authors_code() -> None:
    """Three blocks of models (2, 2 and 1), nine steps each: rise, cosine, clipping and AdamW included."""
    pool = plain_pool()
    soup = mehl(pool, epochs=3, lr=0.05, batch_size=8, block=2, seed=7)
    mixed = mix([pool.state(i) for i in range(5)], soup.coefficients)
    for key, expected in AUTHORS.items():
        assert mixed[key].flatten().tolist() == pytest.approx(expected, abs=2e-6), key
    assert min(min(row) for row in soup.coefficients.values()) < -0.3, "negative coefficients occur"
    assert len(soup.trace) == 3 * 9


def test_the_first_step_by_hand() -> None:
    """a has margins (2, 2), b (-1, -1): the centre is (1/2, 1/2), both are 3/2 times the root of 2 away from it.

    A larger margin lowers the loss. Adam's first step is lr times the sign of the gradient: x = (3, -3). So
    the coefficients are 1/2 plus and minus 3 / (3/2 sqrt 2) = sqrt 2.
    """
    soup = mehl(margin_pool((2, 2), (-1, -1)), epochs=1, lr=3.0, batch_size=2)
    assert soup.coefficients["margin"] == pytest.approx([0.5 + math.sqrt(2), 0.5 - math.sqrt(2)], rel=1e-5)
    assert soup.trace == ({"step": 0, "epoch": 0, "loss": pytest.approx(math.log(1 + math.exp(-0.5)))},)
    assert soup.beta == 1.0


def test_the_learning_rate_rises_for_a_fifth_and_falls_by_a_cosine() -> None:
    assert learning_rates(0.8, 10)[:2] == pytest.approx([0.4, 0.8])
    fall = [0.4 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    assert learning_rates(0.8, 10)[2:] == pytest.approx(fall)
    assert learning_rates(0.8, 1) == [0.8]


def test_clipping_is_torchs() -> None:
    gradients = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([4.0])}
    parameters = [nn.Parameter(torch.zeros_like(g)) for g in gradients.values()]
    for parameter, gradient in zip(parameters, gradients.values(), strict=True):
        parameter.grad = gradient.clone()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    assert clipping(gradients) * gradients["b"].item() == pytest.approx(parameters[1].grad.item(), rel=1e-6)
    assert clipping({"a": torch.tensor([0.5])}) == 1.0


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 99), st.floats(0.001, 1.0))
def test_every_tensors_coefficients_sum_to_one(count: int, block: int, seed: int, lr: float) -> None:
    soup = mehl(plain_pool(count), epochs=1, lr=lr, batch_size=10, block=block, seed=seed)
    assert len(soup.ingredients) == count
    for row in soup.coefficients.values():
        assert math.fsum(row) == pytest.approx(1.0, abs=1e-9)


def test_it_lowers_the_loss_and_repeats() -> None:
    pool = plain_pool()
    soups = [mehl(pool, epochs=10, lr=0.05, batch_size=20, block=2) for _ in range(2)]
    assert soups[0] == soups[1]
    assert soups[0].trace[-1]["loss"] < soups[0].trace[0]["loss"]
    assert mehl(pool, batch_size=8, block=2, seed=1) != mehl(pool, batch_size=8, block=2, seed=2)


def test_a_block_of_files_is_no_other_than_one_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room in memory the weights are summed in pieces; the centre is in memory then too."""
    pool = plain_pool()
    resident = mehl(pool, epochs=2, batch_size=8, block=3)
    monkeypatch.setattr("modelsoups.weights.coefficient_gradients.RESIDENT", {})
    for key, row in mehl(pool, epochs=2, batch_size=8, block=3).coefficients.items():
        assert row == pytest.approx(resident.coefficients[key], abs=1e-4)


def test_common_tensors_get_nothing_and_statistics_keep_the_mean_of_the_first_block() -> None:
    """The authors' code divides by their distance, 0."""
    pool = network_pool(3)
    states = [{**pool.state(i), "head.bias": pool.state(0)["head.bias"]} for i in range(3)]
    soup = mehl(replace(pool, state=states.__getitem__), epochs=2, lr=0.05, batch_size=16)
    for key in ("head.bias", "norm.running_mean", "norm.running_var", "*"):
        assert soup.coefficients[key] == pytest.approx([1 / 3] * 3)
    assert soup.coefficients["head.weight"] != pytest.approx([1 / 3] * 3, abs=1e-3)


def test_one_model_is_kept_as_it_is() -> None:
    assert mehl(margin_pool((2, -1))).coefficients["margin"] == [1.0]


def test_what_is_refused() -> None:
    pool = margin_pool((2, 2), (-1, -1))
    with pytest.raises(ValueError, match="mehl: block=0; expected a number of models from 1 on"):
        mehl(pool, block=0)
    with pytest.raises(ValueError, match="mehl: this pool cannot compute gradients"):
        mehl(replace(pool, gradient=None))
    for option in ({"epochs": 0}, {"batch_size": 0}, {"lr": 0.0}, {"lr": float("nan")}):
        with pytest.raises(ValueError, match=r"mehl: .*expected all of them above 0"):
            mehl(pool, **option)
    with pytest.raises(ValueError, match=r"mehl: the loss is nan at step 0; lower lr=0\.01"):
        mehl(replace(pool, gradient=lambda state, beta, index_B: (float("nan"), 0.0, {})))
