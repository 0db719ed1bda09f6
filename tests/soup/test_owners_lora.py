"""Soups of adapters: PEFT loads them, and computes with them what the mean of the models computes."""

import shutil
import warnings
from pathlib import Path

import owners
import pytest
import torch
from owners import row
from peft_adapters import loaded, model_of, save_adapter, weighted
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from modelsoups import soup

TOKENS_BT = torch.tensor([[0, 3, 10, 2, 7], [1, 1, 5, 9, 4]])


def outputs(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(TOKENS_BT)


def same_alone(kind: str, folder: Path) -> None:
    """The soup of one adapter gives the same bits."""
    out = folder.with_name(f"{folder.name}-alone")
    soup.mix(soup.uniform([folder]), out)
    assert torch.equal(outputs(loaded(kind, out)), outputs(loaded(kind, folder)))


def mean(kind: str, folders: list[Path]) -> tuple[nn.Module, Path]:
    """The mean of the models, worked out in float64, and the file of their base."""
    base = {name: tensor.clone() for name, tensor in model_of(kind).state_dict().items()}
    file = folders[0].with_name("base.safetensors")
    save_file(base, file)
    expected = model_of(kind).double()
    expected.load_state_dict(weighted(base, folders, (1 / len(folders),) * len(folders)))
    return expected, file


def is_the_mean(kind: str, folders: list[Path], without_base: bool = True) -> None:
    """An adapter that PEFT loads, and a full model with the base: both compute what the mean does."""
    expected, base = mean(kind, folders)
    out = base.with_name("soup")
    soup.mix(soup.uniform(folders), out.with_suffix(".safetensors"), base=base)
    whole = model_of(kind)
    whole.load_state_dict(load_file(out.with_suffix(".safetensors")))
    found = [outputs(whole)]
    if without_base:
        soup.mix(soup.uniform(folders), out)
        found.append(outputs(loaded(kind, out)))
    for one in found:
        torch.testing.assert_close(one.double(), outputs(expected), rtol=2e-5, atol=2e-6)


def two(folder: Path, kind: str) -> list[Path]:
    return [save_adapter(folder / name, kind, seed) for name, seed in (("a", 1), ("b", 2))]


@row(
    "LoRA and rsLoRA adapters of PEFT",
    "`adapter_config.json` beside `adapter_model.safetensors` or `.bin`: linear layers, Conv1D, embeddings,"
    " convolutions, ranks and scales by layer, `lora_bias`",
    "an adapter's folder; with `--base` the full model",
    "`PeftModel.from_pretrained`: one adapter alone to the bit, several within float32's rounding",
    "other types (IA3, LoHa, ...), unknown settings, factors without their configuration",
)
def lora(tmp_path: Path) -> None:
    import peft

    kinds = ("LoRA", "LoRA of embedding and convolution", "LoRA of Conv1D (fan_in_fan_out)", "rsLoRA", "lora_bias")
    for number, kind in enumerate((*kinds, "ranks and alphas by layer")):
        folders = two(tmp_path / f"{number}", kind)
        same_alone(kind, folders[0])
        is_the_mean(kind, folders)
    file = folders[0] / "adapter_model.safetensors"
    pickled = Path(shutil.copytree(folders[0], tmp_path / "pickled"))
    torch.save(load_file(file), pickled / "adapter_model.bin")
    (pickled / file.name).unlink()
    same_alone(kind, pickled)
    with pytest.raises(ValueError, match=r"is an adapter \(LoRA\), .* give its folder"):
        soup.mix(soup.uniform([file]), tmp_path / "none.safetensors")
    unknown = Path(shutil.copytree(folders[0], tmp_path / "unknown")) / "adapter_config.json"
    unknown.write_text(unknown.read_text().replace('"use_rslora"', '"use_something": true, "use_rslora"'))
    with pytest.raises(ValueError, match="use_something is set, which changes what an adapter computes"):
        soup.uniform([unknown.parent])
    other = peft.IA3Config(target_modules=["fc1"], feedforward_modules=[])
    peft.get_peft_model(model_of("LoRA"), other).save_pretrained(tmp_path / "ia3")
    with pytest.raises(ValueError, match="type IA3 are not supported"):
        soup.uniform([tmp_path / "ia3"])


@row(
    "biases and `modules_to_save` in adapters of PEFT",
    "as LoRA; `bias=all` and `lora_only`",
    "as LoRA: they are averaged",
    "as LoRA",
    "without `--base`: coefficients that do not sum to 1, and a tensor that another adapter lacks",
)
def whole_tensors(tmp_path: Path) -> None:
    for number, kind in enumerate(("bias=all", "bias=lora_only", "modules_to_save")):
        folders = two(tmp_path / f"{number}", kind)
        same_alone(kind, folders[0])
        is_the_mean(kind, folders)
    plain = save_adapter(tmp_path / "plain", "LoRA", 3)
    with pytest.raises(ValueError, match=r"plain has no .*, but others have: give --base"):
        soup.mix(soup.uniform([folders[0], plain]), tmp_path / "none")


@row(
    "DoRA adapters of PEFT",
    "as LoRA; also rsLoRA with DoRA",
    "one adapter alone as an adapter; several, with `--base`, as the full model",
    "as LoRA; the full model by `load_state_dict`",
    "several without `--base`: their sum has no exact low-rank form",
)
def dora(tmp_path: Path) -> None:
    kinds = ("DoRA", "DoRA of embedding and convolution", "DoRA of Conv1D (fan_in_fan_out)", "rsLoRA with DoRA")
    for number, kind in enumerate(kinds):
        folders = two(tmp_path / f"{number}", kind)
        same_alone(kind, folders[0])
        is_the_mean(kind, folders, without_base=False)
        with pytest.raises(ValueError, match="no exact low-rank form: give --base"):
            soup.mix(soup.uniform(folders), tmp_path / "none")


@owners.of(__name__)
def test_peft_computes_with_the_soup_what_the_mean_computes(each: owners.Row, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own
        pytest.importorskip("peft")
        each.check(tmp_path)
