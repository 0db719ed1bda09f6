"""What `mix` refuses because any soup of it is wrong, what `--force` mixes, and what is no reason to refuse."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from modelsoups import soup
from modelsoups.cli import commands
from modelsoups.soup.refusals import is_adapter, is_placeholder, is_quantized, moved_rows

FLOAT8 = torch.float8_e4m3fn


def of(*names: str, dtype: torch.dtype = torch.float32, size: tuple[int, ...] = (4, 4)) -> dict[str, Tensor]:
    return {name: torch.ones(size, dtype=dtype) for name in names}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (of("q.weight", dtype=torch.int8) | of("q.SCB"), True),
        (of("q.qweight", dtype=torch.int32) | of("q.scales", "embed.weight", size=(99, 99)), True),
        (of("q.weight", dtype=torch.uint8) | of("q.weight.absmax", "embed.weight", size=(99, 99)), True),
        (of("q.weight", dtype=FLOAT8) | of("q.weight_scale", size=(1,)), True),
        (of("q.weight", dtype=FLOAT8) | of("q.weight_scale_inv", "k.weight"), True),
        (of("q.weight", dtype=torch.int64), True),
        (of("q.weight", dtype=FLOAT8), False),
        (of("proj", "visual.weight", dtype=FLOAT8) | of("logit_scale", size=()), False),
        (of("norm.scale", "q.weight", dtype=FLOAT8), False),
        (of("q.weight", "norm.scale") | of("position_ids", dtype=torch.int64, size=(1, 4)), False),
        (of("q.weight", size=(9, 9)) | of("q.mask", dtype=torch.uint8), False),
    ],
)
def test_quantized_weights_are_told_by_dtypes_and_scales(state: dict[str, Tensor], expected: bool) -> None:
    assert is_quantized(state) is expected


def test_adapters_and_placeholders_are_told_by_names_and_shapes() -> None:
    assert is_adapter(of("base_model.model.q.lora_A.weight"))
    assert is_adapter(of("lora_unet_q.lora_down.weight"))
    assert is_adapter(of("lokr_w1"))
    assert is_adapter(of("unet.attn.to_q_lora.up.weight"))  # of diffusers before PEFT
    assert is_adapter(of("layers.0.attn.q_proj.lora_a.weight"))  # of torchtune
    assert is_adapter(of("base_model.model.k.ia3_l"))
    assert not is_adapter(of("explorer.weight", "color.weight"))
    assert is_placeholder(of("q.weight", size=(0,)) | of("a.bias", "b.bias", "c.bias"))
    assert not is_placeholder(of("q.weight") | of("none", size=(0,)))


def saved(folder: Path, *states: dict[str, Tensor]) -> list[str]:
    for n, state in enumerate(states):
        save_file(state, folder / f"{n}.safetensors")
    return [str(folder / f"{n}.safetensors") for n in range(len(states))]


def refused(paths: list[str], out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        commands.main(["mix", "uniform", *paths, "-o", str(out)])
    assert stopped.value.code == 1
    assert not out.exists()
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (of("q.lora_A.weight", "q.lora_B.weight"), "0.safetensors is an adapter (LoRA)"),
        (of("q.weight", dtype=torch.int8) | of("q.SCB"), "0.safetensors is quantized"),
        (of("q.weight", size=(0,)) | of("norm.weight"), "0.safetensors has weights with no elements"),
    ],
)
def test_mix_refuses_and_force_is_noted(tmp_path: Path, capsys, state: dict[str, Tensor], words: str) -> None:
    paths, out = saved(tmp_path, state, {k: 3 * v for k, v in state.items()}), tmp_path / "soup.safetensors"
    error = refused(paths, out, capsys)
    assert words in error
    assert "--force" in error
    with pytest.raises(ValueError, match="force=True"):
        soup.mixed(soup.uniform(paths))
    commands.main(["mix", "uniform", *paths, "-o", str(out), "--force"])
    assert f"forced, although {tmp_path}/{words}" in capsys.readouterr().out
    with safe_open(out, "pt") as file:
        facts = json.loads(file.metadata()["modelsoups"])
    assert words in facts["notes"][0]
    assert words in out.with_suffix(".md").read_text()
    floats = [k for k, v in state.items() if v.is_floating_point() and v.numel()]
    assert all(load_file(out)[k].unique().tolist() == [2] for k in floats)  # the mean of 1 and 3


def head(order: list[int] | None = None, seed: int = 0) -> dict[str, Tensor]:
    rows = torch.randn(5, 32, generator=torch.Generator().manual_seed(seed))
    return {"body.weight": torch.ones(2, 2), "head.weight": rows if order is None else rows[order]}


def test_another_order_of_classes_is_refused(tmp_path: Path, capsys) -> None:
    paths = saved(tmp_path, head(), head([0, 2, 1, 3, 4]))
    error = refused(paths, tmp_path / "soup.safetensors", capsys)
    assert "1.safetensors has 2 classes of head.weight in another order than" in error


def test_of_large_heads_a_sample_tells_whether_all_rows_are_compared(tmp_path: Path) -> None:
    """Of 1,000 classes the sample has every eighth; all but the first are moved by one place."""
    rows_CD = torch.randn(1000, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    moved_CD = torch.cat([rows_CD[:1], rows_CD[1:].roll(1, dims=0)])
    states = [{"head.weight": rows_CD}, {"head.weight": moved_CD}]
    with pytest.raises(ValueError, match=r"1\.safetensors has 99[0-9] classes of head\.weight in another order"):
        soup.mixed(soup.uniform(saved(tmp_path, *states)))
    with pytest.raises(ValueError, match=r"state 1 has 99[0-9] classes"):
        soup.mixed(soup.uniform(states), states)


def test_rows_count_as_moved_only_where_that_is_certain() -> None:
    rows_CD = head()["head.weight"]
    assert moved_rows(rows_CD, rows_CD[[1, 2, 3, 4, 0]] + 0.01) == 5
    assert moved_rows(rows_CD, rows_CD + 0.01) == 0
    assert moved_rows(rows_CD, head(seed=1)["head.weight"]) == 0, "another head is not the same in another order"
    assert moved_rows(torch.eye(2), torch.eye(2)[[1, 0]] + 0.01) == 0, "in two dimensions chance does it"
    assert moved_rows(torch.zeros(3, 8), torch.zeros(3, 8)) == 0


def test_states_that_are_the_same_memory_are_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match=r"state 1 and state 0 share their memory.*keep copies"):
        soup.uniform([model.state_dict(), model.state_dict()])
    copies = [{k: v.clone() for k, v in model.state_dict().items()} for _ in range(2)]
    soup.uniform(copies)
    backbone = copies[0]["0.weight"]
    soup.uniform([{"body": backbone, "head": torch.ones(1)}, {"body": backbone, "head": torch.zeros(1)}])


def test_a_hard_link_is_the_same_file_twice(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, of("w"))
    (tmp_path / "link.safetensors").hardlink_to(path)
    with pytest.raises(ValueError, match=r"link\.safetensors is given twice, also as .*0\.safetensors"):
        soup.uniform([path, tmp_path / "link.safetensors"])


def test_a_shard_of_a_tensor_and_a_head_without_rows(tmp_path: Path) -> None:
    class Sharded(torch.Tensor):
        """As DTensor, which needs a process group."""

        def full_tensor(self) -> Tensor:
            return torch.ones(2, 2)

    with pytest.raises(ValueError, match=r"tensor w is a DTensor, a shard of the whole tensor; give its \.full_tensor"):
        soup.uniform([{"w": torch.ones(1, 2).as_subclass(Sharded)}])
    soup.mix(soup.uniform(saved(tmp_path, of("w", size=(0, 2)), of("w", size=(0, 2)))), tmp_path / "soup.safetensors")
    assert load_file(tmp_path / "soup.safetensors")["w"].shape == (0, 2)
