"""Mixing, layer groups, distances and angles, against answers worked out by hand and exact arithmetic."""

from fractions import Fraction

import pytest
import torch
from handmade import network_states
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelsoups.weights.state_dicts import (
    RunningSum,
    angle,
    inner_products,
    interpolate,
    layer_of,
    mix,
    repeated_weights,
)

floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**100), max_value=2.0**100)


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and bits(a[k]) == bits(b[k]) for k in a)


# ---- mix ----


def test_mix_by_hand() -> None:
    """1/4 (1, 2) + 3/4 (3, 6) = (2.5, 5); the buffer is the first one's, not the mean 4.5."""
    a = {"w": torch.tensor([1.0, 2.0]), "steps": torch.tensor(3), "on": torch.tensor([True])}
    b = {"w": torch.tensor([3.0, 6.0]), "steps": torch.tensor(6), "on": torch.tensor([False])}
    mixed = mix([a, b], {"*": [0.25, 0.75]})
    assert mixed["w"].tolist() == [2.5, 5.0]
    assert mixed["steps"].item() == 3
    assert mixed["on"].tolist() == [True]
    assert mixed["steps"].dtype == torch.int64


def test_mix_by_layer_by_hand() -> None:
    """Block 0: 1 * 1 + 0 * 10 = 1; block 1: 0.5 * 2 + 0.5 * 20 = 11; head: no group, so "*": 0.1 * 30 + 0.9 * 3."""
    a = {"blocks.0.w": torch.tensor([1.0]), "blocks.1.w": torch.tensor([2.0]), "head.w": torch.tensor([30.0])}
    b = {"blocks.0.w": torch.tensor([10.0]), "blocks.1.w": torch.tensor([20.0]), "head.w": torch.tensor([3.0])}
    mixed = mix([a, b], {"blocks.0": [1, 0], "blocks.1": [0.5, 0.5], "*": [0.1, 0.9]})
    assert [mixed[k].item() for k in a] == pytest.approx([1.0, 11.0, 5.7])


def test_coefficients_need_not_sum_to_one() -> None:
    """2 * 3 - 1 * 4 = 2: extrapolation and task vectors are mixes too."""
    assert mix([{"w": torch.tensor([3.0])}, {"w": torch.tensor([4.0])}], {"*": [2, -1]})["w"].item() == 2.0
    a, b = ({"w": torch.tensor([x], dtype=torch.float64)} for x in (3.0, 4.0))
    assert mix([a, b], {"*": [2, -1]})["w"].item() == 2.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 2, 3, 6, 7, 49, 72])
def test_mixing_identical_states_gives_that_state_bit_for_bit(dtype: torch.dtype, count: int) -> None:
    values = torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(count))
    state = {"w": torch.cat([values, torch.tensor([0.0, -0.0, 1e-40, 6e4])]).to(dtype), "n": torch.tensor(5)}
    assert same(mix([state] * count, {"*": [1 / count] * count}), state)


def test_a_mean_is_rounded_once_even_where_it_lies_between_two_numbers() -> None:
    """The mean of 2**24 - {0, 0, 0, 1, 1, 1} is 2**24 - 0.5, half way between two float32; even wins: 2**24.

    Adding six sixths in float64 misses the middle and may land on either side.
    """
    values = [2.0**24 - d for d in (0, 1, 0, 1, 0, 1)]
    mixed = mix([{"w": torch.tensor([v])} for v in values], {"*": [1 / 6] * 6})
    assert mixed["w"].item() == 2.0**24


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-(2**24), 2**24), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_uniform_mean_is_exact_and_order_does_not_matter(values: list[int], random) -> None:  # type: ignore[no-untyped-def]
    row = {"*": [1 / len(values)] * len(values)}
    mixed = mix([{"w": torch.tensor([float(v)])} for v in values], row)["w"]
    exact = torch.tensor(Fraction(sum(values), len(values)).__float__(), dtype=torch.float64).float()
    assert mixed.item() == exact.item()
    random.shuffle(values)
    assert mix([{"w": torch.tensor([float(v)])} for v in values], row)["w"].item() == mixed.item()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(floats32, st.floats(-2, 2)), min_size=1, max_size=8))
def test_mix_is_the_naive_sum(pairs: list[tuple[float, float]]) -> None:
    """Against exact fractions: off by at most one unit of float32, and of float64 times the largest term."""
    exact = sum((Fraction(c) * Fraction(v) for v, c in pairs), Fraction(0))
    largest = max(abs(Fraction(c) * Fraction(v)) for v, c in pairs)
    mixed = mix([{"w": torch.tensor([v])} for v, _ in pairs], {"*": [c for _, c in pairs]})["w"]
    assert mixed.dtype == torch.float32
    assert abs(Fraction(mixed.item()) - exact) <= abs(exact) / 2**23 + largest / 2**48 + Fraction(1, 2**149)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(floats32, min_size=3, max_size=3), min_size=1, max_size=6), st.data())
def test_running_mean_is_mix_bit_for_bit(rows: list[list[float]], data: st.DataObject) -> None:
    """Greedy evaluates running means and writes coefficients down; both must be the same weights."""
    states = [{"w": torch.tensor(row), "n": torch.tensor(i)} for i, row in enumerate(rows)]
    picks = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=8))
    total = RunningSum()
    for i in picks[:-1]:
        total.add(states[i])
    members = list(dict.fromkeys(picks))
    row = [picks.count(i) / len(picks) for i in members]
    if len(set(members)) == len(picks):  # the order of adding is then the same
        assert same(total.mean_with(states[picks[-1]]), mix([states[i] for i in members], {"*": row}))
    else:
        mean = total.mean_with(states[picks[-1]])["w"]
        torch.testing.assert_close(mean, mix([states[i] for i in members], {"*": row})["w"])


def test_looking_at_a_mean_does_not_add() -> None:
    total = RunningSum()
    total.add({"w": torch.tensor([2.0])})
    for _ in range(2):
        assert total.mean_with({"w": torch.tensor([4.0])})["w"].item() == 3.0
    assert total.divided(1)["w"].item() == 2.0
    states = network_states(2)
    total = RunningSum()
    total.add(states[0])
    before = {k: v.clone() for k, v in states[0].items()}
    total.add(states[1])
    assert same(states[0], before), "a state that was added must not change"


@pytest.mark.parametrize(
    ("states", "coefficients", "message"),
    [
        ([], {"*": []}, "no states to mix"),
        ([{"h.w": torch.ones(1)}], {"g": [1]}, "layer group g has no tensors; expected one of h"),
        ([{"h.w": torch.ones(1), "g.w": torch.ones(1)}], {"h": [1]}, r"tensor g\.w: no coefficients for layer group g"),
        ([{"h.w": torch.ones(1)}], {"*": [0.5, 0.5]}, "layer group h: 2 coefficients for 1 models"),
        (
            [{"w": torch.ones(1)}, {"v": torch.ones(1)}],
            {"*": [0.5, 0.5]},
            r"state 1: tensor w is missing.*\(2 tensors differ\)",
        ),
        (
            [{"w": torch.ones(1), "x": torch.ones(1)}, {"w": torch.ones(1)}],
            {"*": [1, 1]},
            "state 1: tensor x is miss",
        ),
        ([{"w": torch.ones(1)}, {"w": torch.ones(3)}], {"*": [1, 1]}, r"state 1: tensor w is \(3,\) float32, expected"),
        ([{"w": torch.ones(1)}, {"w": torch.ones(1).half()}], {"*": [1, 1]}, r"float16, expected \(1,\) float32"),
    ],
)
def test_what_cannot_be_mixed(
    states: list[dict[str, Tensor]], coefficients: dict[str, list[float]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        mix(states, coefficients)


def test_running_sum_refuses_other_names() -> None:
    total = RunningSum()
    total.add({"w": torch.ones(1)})
    for use in (total.add, total.mean_with):
        with pytest.raises(ValueError, match="state 1: tensor w is missing"):
            use({"v": torch.ones(1)})


def test_interpolate_by_hand() -> None:
    """0.75 * 4 + 0.25 * 8 = 5."""
    a, b = {"w": torch.tensor([4.0])}, {"w": torch.tensor([8.0])}
    assert [interpolate(a, b, x)["w"].item() for x in (0, 0.25, 1)] == [4.0, 5.0, 8.0]


# ---- layer groups ----


@pytest.mark.parametrize(
    ("key", "group"),
    [
        ("encoder.transformer.resblocks.3.attn.in_proj_weight", "encoder.transformer.resblocks.3"),  # open_clip
        ("encoder.transformer.resblocks.11.mlp.c_fc.bias", "encoder.transformer.resblocks.11"),
        ("model.visual.transformer.resblocks.0.ln_1.weight", "model.visual.transformer.resblocks.0"),
        ("encoder.conv1.weight", "encoder.conv1"),
        ("encoder.class_embedding", "encoder"),
        ("encoder.ln_post.bias", "encoder.ln_post"),
        ("head.weight", "head"),
        ("blocks.3.attn.qkv.weight", "blocks.3"),  # timm ViT
        ("encoder.blocks.10.norm1.weight", "encoder.blocks.10"),
        ("layers.2.blocks.5.attn.proj.weight", "layers.2.blocks.5"),  # timm Swin
        ("stages.1.blocks.0.conv_dw.weight", "stages.1.blocks.0"),  # timm ConvNeXt
        ("stages.1.downsample.0.weight", "stages.1"),
        ("blocks.4.1.conv_pw.weight", "blocks.4.1"),  # timm EfficientNet
        ("layer1.0.bn1.running_mean", "layer1.0"),  # ResNet
        ("cls_token", "(root)"),
        ("patch_embed.proj.weight", "patch_embed.proj"),
        ("bert.encoder.layer.7.attention.self.query.weight", "bert.encoder.layer.7"),  # Hugging Face
        ("encoder.block.2.layer.0.SelfAttention.q.weight", "encoder.block.2"),  # T5
        ("transformer.h.4.mlp.c_fc.weight", "transformer.h.4"),  # GPT-2
        ("vision_model.encoder.layers.6.layer_norm1.weight", "vision_model.encoder.layers.6"),
        ("features.3.0.block.0.0.weight", "features.3.0"),  # torchvision
        ("encoder.layers.encoder_layer_3.ln_1.weight", "encoder.layers.encoder_layer_3"),
        ("myblocks.3.weight", "myblocks.3"),  # not a known container: the module that owns it
    ],
)
def test_layer_groups(key: str, group: str) -> None:
    assert layer_of(key) == group


# ---- geometry ----


def matrix(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float32)


def test_angle_by_hand() -> None:
    """From (1, 1): to (3, 1) is (2, 0), to (2, 2) is (1, 1): 45 degrees. The bias would make it another angle."""
    start = {"w": matrix(1, 1), "bias": torch.tensor([0.0])}
    one = {"w": matrix(3, 1), "bias": torch.tensor([100.0])}
    two = {"w": matrix(2, 2), "bias": torch.tensor([-7.0])}
    assert angle(start, one, two) == pytest.approx(45.0)
    assert angle(start, one, one) == pytest.approx(0.0, abs=1e-5)
    opposite = {"w": matrix(-4, 1), "bias": torch.tensor([0.0])}
    assert angle(start, one, opposite) == pytest.approx(180.0)


def test_angle_counts_the_repeated_blocks_alone() -> None:
    """J.1: not the head, the first convolution, positions and projection, nor gains and biases of the blocks."""
    start = {
        "visual.conv1.weight": matrix(0),
        "visual.positional_embedding": matrix(0),
        "visual.transformer.resblocks.0.attn.in_proj_weight": matrix(0, 0),
        "visual.transformer.resblocks.0.ln_1.weight": torch.tensor([1.0]),
        "visual.transformer.resblocks.0.ln_1.bias": torch.tensor([0.0]),
        "visual.proj": matrix(0),
        "head.weight": matrix(0),
    }
    one = {key: tensor + 5 for key, tensor in start.items()}
    two = {key: tensor + 5 for key, tensor in start.items()}
    key = "visual.transformer.resblocks.0.attn.in_proj_weight"
    one[key], two[key] = matrix(2, 0), matrix(1, 1)
    assert repeated_weights(start) == [key]
    assert angle(start, one, two) == pytest.approx(45.0)


def test_angle_spans_tensors() -> None:
    """(1, 0 | 0) against (0, 0 | 1): at right angles, although each tensor alone gives no direction for one of them."""
    start = {"w": matrix(0, 0), "v": matrix(0)}
    assert angle(start, {"w": matrix(1, 0), "v": matrix(0)}, {"w": matrix(0, 0), "v": matrix(1)}) == 90.0


def test_no_angle_without_a_direction() -> None:
    start = {"w": matrix(1, 2)}
    with pytest.raises(ValueError, match="same weights as the start"):
        angle(start, start, {"w": matrix(0, 0)})


def test_inner_products_by_hand() -> None:
    """From the origin (3, 4 | 12) and (1, 0 | 2): 169, 27, 5; without the bias 25, 3, 1. Buffers do not count."""
    start = {"w": matrix(0, 0), "bias": torch.tensor([0.0]), "n": torch.tensor(1)}
    one = {"w": matrix(3, 4), "bias": torch.tensor([12.0]), "n": torch.tensor(9)}
    two = {"w": matrix(1, 0), "bias": torch.tensor([2.0]), "n": torch.tensor(5)}
    assert inner_products(start, one, two) == (169, 27, 5)
    assert inner_products(start, one, two, ["w"]) == (25, 3, 1)


def test_models_of_different_layouts_have_no_angle() -> None:
    with pytest.raises(ValueError, match=r"cannot be compared: tensor v is \(1, 1\) float32, expected no such tensor"):
        angle({"w": matrix(0), "v": matrix(0)}, {"w": matrix(1)}, {"w": matrix(2)})
