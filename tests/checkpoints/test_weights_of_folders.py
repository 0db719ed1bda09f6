"""Which files of a folder hold weights, whatever library wrote it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modelsoups.checkpoints.formats import open_checkpoint


def save(path: Path, value: float, name: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: torch.full((2,), value)}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("model.safetensors", "model.safetensors"),
        ("pytorch_model.bin", "model.safetensors"),
        ("open_clip_model.safetensors", "open_clip_model.safetensors"),
        ("open_clip_pytorch_model.bin", "open_clip_model.safetensors"),
        ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors"),
        ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors"),
    ],
)
def test_every_librarys_name_is_read_and_written_as_safetensors(tmp_path: Path, name: str, written: str) -> None:
    save(tmp_path / name, 1)
    opened = open_checkpoint(tmp_path)
    assert opened["w"].tolist() == [1, 1]
    assert opened.parts == {"": Path(written)}


def test_shards_of_a_librarys_name_are_one_model(tmp_path: Path) -> None:
    name = "diffusion_pytorch_model.safetensors"
    save(tmp_path / "diffusion_pytorch_model-00001-of-00002.safetensors", 1, "a")
    save(tmp_path / "diffusion_pytorch_model-00002-of-00002.safetensors", 2, "b")
    shards = {k: f"diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n, k in ((1, "a"), (2, "b"))}
    (tmp_path / f"{name}.index.json").write_text(json.dumps({"weight_map": shards}))
    opened = open_checkpoint(tmp_path)
    assert {key: opened[key][0].item() for key in opened} == {"a": 1, "b": 2}
    assert opened.parts == {"": Path(name)}


def test_the_same_weights_in_two_formats_are_read_once(tmp_path: Path) -> None:
    save(tmp_path / "pytorch_model.bin", 7)
    save(tmp_path / "model.safetensors", 1)
    assert {key: t.tolist() for key, t in open_checkpoint(tmp_path).items()} == {"w": [1, 1]}


def test_a_classifier_or_a_second_model_beside_the_first_is_read_too(tmp_path: Path) -> None:
    save(tmp_path / "open_clip_model.safetensors", 1)
    save(tmp_path / "head.safetensors", 2)
    opened = open_checkpoint(tmp_path)
    assert {key: t[0].item() for key, t in opened.items()} == {"w": 1, "head.safetensors/w": 2}
    assert opened.parts == {"": Path("open_clip_model.safetensors"), "head.safetensors/": Path("head.safetensors")}


def test_only_subfolders_that_an_index_names_belong_to_the_model(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", 1)
    save(tmp_path / "2_Dense" / "pytorch_model.bin", 2)
    save(tmp_path / "3_Router" / "query_0_Dense" / "model.safetensors", 3)
    for other in ("checkpoint-500", "2_Dense/checkpoint-9", "old", ".cache"):
        save(tmp_path / other / "model.safetensors", 9)
    modules = [{"idx": i, "path": p} for i, p in enumerate(["", "1_Pooling", "2_Dense", "3_Router"])]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    opened = open_checkpoint(tmp_path)
    values = {key: t[0].item() for key, t in opened.items()}
    assert values == {"w": 1, "2_Dense/w": 2, "3_Router/query_0_Dense/w": 3}
    assert opened.parts["2_Dense/"] == Path("2_Dense/model.safetensors")


def test_a_pipeline_of_diffusers_has_no_weights_of_its_own(tmp_path: Path) -> None:
    save(tmp_path / "unet" / "diffusion_pytorch_model.safetensors", 1)
    save(tmp_path / "text_encoder" / "model.safetensors", 2)
    index = {"_class_name": "X", "unet": ["diffusers", "U"], "text_encoder": ["transformers", "T"], "vae": [None, None]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    opened = open_checkpoint(tmp_path)
    assert {key: t[0].item() for key, t in opened.items()} == {"text_encoder/w": 2, "unet/w": 1}


def test_a_component_whose_weights_have_an_unknown_name_is_not_dropped(tmp_path: Path) -> None:
    save(tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors", 1)
    save(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", 2)
    (tmp_path / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "U"], "vae": ["diffusers", "V"]}))
    with pytest.raises(
        ValueError, match=r"unet contains diffusion_pytorch_model\.fp16\.safetensors, but no weights with"
    ):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["../other", "/etc", "a/../../other"])
def test_an_index_that_names_a_folder_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    save(tmp_path / "m" / "model.safetensors", 1)
    (tmp_path / "m" / "modules.json").write_text(json.dumps([{"path": name}]))
    with pytest.raises(ValueError, match=r"modules\.json names the folder .*, which lies outside"):
        open_checkpoint(tmp_path / "m")


@pytest.mark.parametrize("content", ["[", "[" * 100_000])
def test_a_damaged_index_is_named(tmp_path: Path, content: str) -> None:
    save(tmp_path / "model.safetensors", 1)
    (tmp_path / "modules.json").write_text(content)
    with pytest.raises(ValueError, match=r"modules\.json is not valid JSON"):
        open_checkpoint(tmp_path)


def test_a_folder_without_weights_of_a_known_name_says_what_to_give(tmp_path: Path) -> None:
    save(tmp_path / "ckpts" / "epoch_0.pt", 1)
    save(tmp_path / "ckpts" / "epoch_1.pt", 1)
    with pytest.raises(
        ValueError, match=r"it contains 2 checkpoints \(epoch_0\.pt, epoch_1\.pt\): .* \S+/ckpts/\*\.pt$"
    ):
        open_checkpoint(tmp_path / "ckpts")
    save(tmp_path / "run" / "checkpoint-500" / "model.safetensors", 1)
    with pytest.raises(ValueError, match="its subfolders checkpoint-500 contain weights: give one of these"):
        open_checkpoint(tmp_path / "run")


def test_an_adapters_folder_is_called_so(tmp_path: Path) -> None:
    save(tmp_path / "adapter_model.safetensors", 1, "layers.0.lora_A.weight")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"an adapter \(LoRA .* give the base model too"):
        open_checkpoint(tmp_path)
