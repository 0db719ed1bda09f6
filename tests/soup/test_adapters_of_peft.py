"""Adapters that PEFT saved: their soups are exact, PEFT loads them, and outputs are those worked out in float64."""

import warnings
from pathlib import Path

import pytest
import torch
from peft_adapters import KINDS, error, loaded, meaning, model_of, save_adapter, weighted
from safetensors.torch import load_file, save_file

from modelsoups import soup
from modelsoups.soup.coefficients import Soup

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("peft")

DORA = [kind for kind in KINDS if "DoRA" in kind]
WHOLE = ["bias=all", "bias=lora_only", "modules_to_save"]
TOKENS_BT = torch.tensor([[0, 3, 10, 2, 7], [1, 1, 5, 9, 4]])


class Case:
    def __init__(self, kind: str, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.kind, self.base = kind, {k: t.clone() for k, t in model_of(kind).state_dict().items()}
        self.a, self.b = (save_adapter(folder / name, kind, seed, dtype) for name, seed in (("a", 1), ("b", 2)))
        self.file = folder / "base.safetensors"
        save_file(self.base, self.file)

    def check_outputs(self, folder: Path, weights: tuple[float, ...]) -> None:
        """PEFT computes with the soup's adapter what the float64 model does."""
        right = model_of(self.kind).double()
        right.load_state_dict(weighted(self.base, [self.a, self.b][: len(weights)], weights))
        with torch.no_grad():
            expected, found = right(TOKENS_BT), loaded(self.kind, folder)(TOKENS_BT)
            torch.testing.assert_close(found.double(), expected, rtol=2e-5, atol=2e-6)


def weighted_soup(folders: list[Path], weights: tuple[float, ...]) -> Soup:
    opened = soup.uniform(folders)
    return Soup("weights", opened.ingredients, opened.hashes, {"*": list(weights)})


@pytest.mark.parametrize("kind", KINDS)
def test_one_adapter_comes_out_as_itself(tmp_path: Path, kind: str) -> None:
    case = Case(kind, tmp_path)
    soup.mix(soup.uniform([case.a]), tmp_path / "soup")
    mine, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path / "soup", case.a))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    case.check_outputs(tmp_path / "soup", (1.0,))
    soup.mix(soup.uniform([case.a]), tmp_path / "soup.safetensors", base=case.file)
    assert error(load_file(tmp_path / "soup.safetensors"), meaning(case.base, case.a), case.base) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_of_two_is_the_mean_of_their_models(tmp_path: Path, kind: str) -> None:
    case = Case(kind, tmp_path)
    chosen = soup.uniform([case.a, case.b])
    soup.mix(chosen, tmp_path / "soup.safetensors", base=case.file)
    expected = weighted(case.base, [case.a, case.b], (0.5, 0.5))
    assert error(load_file(tmp_path / "soup.safetensors"), expected, case.base) < 1e-6
    if kind in DORA:
        with pytest.raises(ValueError, match=r"a is a DoRA adapter, .* no exact low-rank form: give --base MODEL"):
            soup.mix(chosen, tmp_path / "soup")
        assert not (tmp_path / "soup").exists()
        return
    soup.mix(chosen, tmp_path / "soup")
    assert error(meaning(case.base, tmp_path / "soup"), expected, case.base) < 1e-6
    case.check_outputs(tmp_path / "soup", (0.5, 0.5))


@pytest.mark.parametrize("kind", KINDS)
def test_coefficients_scale_the_updates_whatever_their_sum(tmp_path: Path, kind: str) -> None:
    case, weights = Case(kind, tmp_path), (0.7, -0.2)
    chosen = weighted_soup([case.a, case.b], weights)
    notes = soup.mix(chosen, tmp_path / "soup.safetensors", base=case.file)
    assert any("sum to 0.5, not 1: this scales the updates, but not the base" in note for note in notes)
    expected = weighted(case.base, [case.a, case.b], weights)
    assert error(load_file(tmp_path / "soup.safetensors"), expected, case.base) < 1e-6
    if kind in WHOLE:
        with pytest.raises(ValueError, match=r"sum to 0\.5, not 1, but .* is a tensor, not an update: give --base"):
            soup.mix(chosen, tmp_path / "soup")
    elif kind not in DORA:
        soup.mix(chosen, tmp_path / "soup")
        assert error(meaning(case.base, tmp_path / "soup"), expected, case.base) < 1e-6


def test_adapters_of_different_layers_ranks_and_scalings(tmp_path: Path) -> None:
    kind = "LoRA"
    case = Case(kind, tmp_path)
    save_adapter(tmp_path / "c", kind, 3, target_modules=["fc2", "words"], r=5, use_rslora=True, lora_alpha=3)
    soup.mix(soup.uniform([case.a, tmp_path / "c"]), tmp_path / "soup")
    expected = weighted(case.base, [case.a, tmp_path / "c"], (0.5, 0.5))
    assert error(meaning(case.base, tmp_path / "soup"), expected, case.base) < 1e-6
    right = model_of(kind).double()
    right.load_state_dict(expected)
    with torch.no_grad():
        found = loaded(kind, tmp_path / "soup")(TOKENS_BT)
        torch.testing.assert_close(found.double(), right(TOKENS_BT), rtol=2e-5, atol=2e-6)


def test_biases_of_layers_that_only_one_adapter_wraps(tmp_path: Path) -> None:
    """PEFT calls fc1's bias fc1.base_layer.bias in one and fc1.bias in the other; the sum wraps both layers."""
    targets = (["fc1"], ["fc2", "head"])
    folders = [save_adapter(tmp_path / t[0], "bias=all", n, target_modules=t) for n, t in enumerate(targets)]
    soup.mix(soup.uniform(folders), tmp_path / "soup")
    base = {k: t.clone() for k, t in model_of("bias=all").state_dict().items()}
    right = model_of("bias=all").double()
    right.load_state_dict(weighted(base, folders, (0.5, 0.5)))
    with torch.no_grad():
        found = loaded("bias=all", tmp_path / "soup")(TOKENS_BT)
        torch.testing.assert_close(found.double(), right(TOKENS_BT), rtol=2e-5, atol=2e-6)


def test_attentions_two_updates_stay_together_and_are_not_merged(tmp_path: Path) -> None:
    """PEFT adds the update of out_proj twice, so only what is linear in it can be said."""
    kind = "LoRA"
    targets = {1: ["attn", "fc1"], 2: ["attn"]}
    folders = [save_adapter(tmp_path / f"{n}", kind, n, target_modules=t, r=1 + n) for n, t in targets.items()]
    soup.mix(soup.uniform(folders), tmp_path / "soup")
    merged = [loaded(kind, f).merge_and_unload().state_dict() for f in (*folders, tmp_path / "soup")]
    for name, tensor in merged[2].items():
        torch.testing.assert_close(tensor, (merged[0][name] + merged[1][name]) / 2)
    save_file({k: t.clone() for k, t in model_of(kind).state_dict().items()}, tmp_path / "base.safetensors")
    with pytest.raises(ValueError, match=r"attn\.base_layer\.out_proj: PEFT 0\.21 adds the update .* twice"):
        soup.mix(soup.uniform(folders), tmp_path / "soup.safetensors", base=tmp_path / "base.safetensors")


@pytest.mark.parametrize(
    ("weights", "given", "dtype"),
    [
        ((0.5, 0.5), torch.bfloat16, torch.bfloat16),
        ((0.7, 0.3), torch.bfloat16, torch.float32),
        ((0.5, 0.5), torch.float16, torch.float16),
        ((0.25, 0.75), torch.float16, torch.float32),
    ],
)
def test_half_precision_factors_are_widened_only_where_they_must_be(
    tmp_path: Path, weights: tuple[float, ...], given: torch.dtype, dtype: torch.dtype
) -> None:
    case = Case("LoRA", tmp_path, given)
    for folder in (case.a, case.b):  # alpha / r = 2: with 1/2 exact in bfloat16
        config = (folder / "adapter_config.json").read_text().replace('"lora_alpha": 6', '"lora_alpha": 4')
        (folder / "adapter_config.json").write_text(config)
    notes = soup.mix(weighted_soup([case.a, case.b], weights), tmp_path / "soup")
    assert {t.dtype for t in load_file(tmp_path / "soup" / "adapter_model.safetensors").values()} == {dtype}
    assert any("written in float32" in note for note in notes) is (dtype == torch.float32)
    expected = weighted(case.base, [case.a, case.b], weights)
    assert error(meaning(case.base, tmp_path / "soup"), expected, case.base) < 1e-6
