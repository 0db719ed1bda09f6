"""Checkpoints of one model, saved in different ways, are mixed with a note; other models stay apart."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from modelsoups import soup
from modelsoups.checkpoints.alike import align
from modelsoups.checkpoints.formats import open_checkpoint
from modelsoups.weights.digests import digest

A = {"a.weight": torch.tensor([[1.0, 2.0]]), "a.bias": torch.tensor([4.0])}
B = {"a.weight": torch.tensor([[3.0, 6.0]]), "a.bias": torch.tensor([8.0])}
MEAN = {"a.weight": [[2.0, 4.0]], "a.bias": [6.0]}
NUMBERS = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
INDEX = {"position_ids": torch.arange(3)}


def mixed(*states: dict[str, torch.Tensor]) -> dict[str, list]:
    return {k: v.tolist() for k, v in soup.mixed(soup.uniform(states), states).items()}


@pytest.mark.parametrize("way", ["model.{}", "net.model.{}"])
def test_a_prefix_that_one_has_is_no_difference(way: str) -> None:
    longer = {way.format(k): v for k, v in B.items()}
    assert mixed(A, longer) == MEAN
    assert mixed(longer, A) == {way.format(k): v for k, v in MEAN.items()}  # the first one's names


def test_module_within_the_names_of_one_is_no_difference() -> None:
    inner = {k.replace("a.", "a.module."): v for k, v in B.items()}
    assert mixed(A, inner) == MEAN
    opened = [open_checkpoint(A), open_checkpoint(inner)]
    align(opened)
    assert opened[1].notes == ["its tensor names were changed to those of state in memory"]


def test_index_buffers_that_some_lack_are_the_first_ones() -> None:
    assert mixed({**A, **INDEX}, B) == {**MEAN, "position_ids": [0, 1, 2]}
    assert mixed(A, {**B, **INDEX}) == MEAN
    opened = [open_checkpoint({**A, **INDEX}), open_checkpoint(B)]
    align(opened)
    what = "position_ids (buffers, not weights) taken from state in memory"
    assert opened[1].notes == [what]


@pytest.mark.parametrize(
    "buffer",
    [
        {"layers.0.rotary_emb.inv_freq": torch.rand(3)},
        {"h.0.attn.bias": torch.ones(1, 1, 1, dtype=torch.uint8), "h.0.attn.masked_bias": torch.tensor(-1e4)},
        {"layers.1.attn_mask": torch.zeros(2, 2)},
        {"a._extra_state": torch.ones(1, dtype=torch.uint8)},  # of TransformerEngine
    ],
)
def test_buffers_that_a_version_of_the_library_saves_are_no_difference(buffer: dict[str, torch.Tensor]) -> None:
    expected = {key: tensor.tolist() for key, tensor in buffer.items()}
    assert mixed({**A, **buffer}, B) == {**MEAN, **expected}
    assert mixed(A, {**B, **buffer}) == MEAN


@pytest.mark.parametrize("way", ["{}", "model.{}", "module.net.{}"])
def test_a_prefix_and_a_buffer_are_no_difference(way: str) -> None:
    """position_ids first, as in BERT: the first name is one that the other lacks."""
    longer = {way.format(key): tensor for key, tensor in {**INDEX, **B}.items()}
    assert mixed(A, longer) == MEAN
    assert mixed({**INDEX, **A}, {way.format(key): tensor for key, tensor in B.items()}) == {
        "position_ids": [0, 1, 2],
        **MEAN,
    }


class Tied(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(3, 2), nn.Linear(2, 3, bias=False)
        self.head.weight = self.embed.weight
        self.embed.weight.data = value * NUMBERS


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("way", ["tied", "copied"])
def test_ties_that_one_holds_once_and_another_twice(tmp_path: Path, order: tuple[int, int], way: str) -> None:
    save_file({"embed.weight": NUMBERS}, tmp_path / "0.safetensors")  # as save_pretrained does
    if way == "tied":
        torch.save(Tied(3.0).state_dict(), tmp_path / "1.pt")
    else:
        save_file({k: v.clone() for k, v in Tied(3.0).state_dict().items()}, tmp_path / "1.safetensors")
    files = sorted(p for p in tmp_path.iterdir())
    soup.mix(soup.uniform([files[i] for i in order]), tmp_path / "out.safetensors")
    loaded = Tied(0.0)
    loaded.load_state_dict(soup.load(tmp_path / "out.safetensors"))
    assert loaded.head.weight.tolist() == loaded.embed.weight.tolist() == [[2, 4], [6, 8], [10, 12]]


def test_ties_named_from_the_other_end(tmp_path: Path) -> None:
    save_model(Tied(1.0), str(tmp_path / "0.safetensors"))
    save_file({"head.weight": 3 * NUMBERS}, tmp_path / "1.safetensors")
    soup.mix(soup.uniform([tmp_path / "0.safetensors", tmp_path / "1.safetensors"]), tmp_path / "out.safetensors")
    assert {k: v[0, 0].item() for k, v in soup.load(tmp_path / "out.safetensors").items()} == {
        "embed.weight": 2.0,
        "head.weight": 2.0,
    }


def test_other_models_stay_apart() -> None:
    for other in (
        {**B, "b.weight": torch.ones(1, 2)},
        {"a.weight": torch.ones(2, 2), "a.bias": torch.ones(1)},
        {**B, "up.weight": torch.zeros(1, 2), "down.weight": torch.zeros(1, 2)},
        {**B, "q": torch.ones(2, dtype=torch.int8)},
        {"model.a.weight": torch.ones(2, 1), "model.a.bias": torch.ones(1)},
    ):
        with pytest.raises(ValueError, match="cannot be mixed"):
            mixed(A, other)


def test_zeros_are_no_tie() -> None:
    zeros = {"a.weight": torch.zeros(1, 2), "b.weight": torch.zeros(1, 2)}
    with pytest.raises(ValueError, match=r"tensor b\.weight is missing"):
        mixed(zeros, {"a.weight": torch.ones(1, 2)})


def test_a_digest_is_of_the_file_whatever_it_is_mixed_with(tmp_path: Path) -> None:
    for name, state in (("a", {**A, **INDEX}), ("b", B), ("c", {f"model.{k}": v for k, v in B.items()})):
        torch.save(state, tmp_path / f"{name}.pt")
    paths = [tmp_path / f"{name}.pt" for name in "abc"]
    chosen = soup.greedy(paths[:2], lambda state: -float((state["a.bias"] - 8).abs()))
    assert chosen.ingredients == (str(paths[1]),)  # b alone, which took a's buffer when it was opened
    soup.mix(chosen, tmp_path / "out.safetensors")
    assert chosen.hashes == (digest(open_checkpoint(paths[1])),)
