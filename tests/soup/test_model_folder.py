"""Folders in, folder out: what a soup's folder holds, and what is left out and listed."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from modelsoups import soup
from modelsoups.soup.coefficients import Soup

LEFT = "left out of the folder (files of one training run, other weights, or different between the folders): "


def write(folder: Path, files: Mapping[str, str | float]) -> Path:
    """Files by name: text, or a number for weights of that value."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        elif path.suffix == ".safetensors":
            save_file({"w": torch.full((2,), content)}, path)
        else:
            torch.save({"w": torch.full((2,), content)}, path)
    return folder


def mixed(tmp_path: Path, one: Mapping[str, str | float], two: Mapping[str, str | float]) -> tuple[set[str], list[str]]:
    """The names of the soup's files and the notes of the uniform soup of two folders."""
    folders = [write(tmp_path / "one", one), write(tmp_path / "two", two)]
    notes = soup.mix(soup.uniform(folders), tmp_path / "soup")
    assert not list(tmp_path.glob(".*"))
    found = (tmp_path / "soup").rglob("*")
    return {p.relative_to(tmp_path / "soup").as_posix() for p in found if p.is_file()}, notes


def left_out(notes: list[str]) -> set[str]:
    (note,) = [note for note in notes if note.startswith(LEFT)]
    return set(note.removeprefix(LEFT).split(", "))


CONFIGURATION = ("config.json", "preprocessor_config.json", "vocab.txt", "merges.txt", "chat_template.jinja", "LICENSE")


def test_a_trainers_state_and_results_are_not_the_soups(tmp_path: Path) -> None:
    of_one = {
        "trainer_state.json": '{"best_metric": 0.9}',
        "eval_results.json": '{"eval_accuracy": 0.9}',
        "all_results.json": "{}",
        "train_config.json": "{}",
        "metrics.json": "{}",
        "training_args.bin": "x",
        "README.md": "---\nmodel-index: [{results: [{value: 0.9}]}]\n---\n",
        "optimizer.pt": "x",
        "scheduler.pt": "x",
        "rng_state_0.pth": "x",
        "zero_to_fp32.py": "x",
        "latest": "x",
        "events.out.tfevents.1": "x",
        "manifest.json": "{}",
        "recipe.json": "{}",
        "soup.json": "{}",
        "pytorch_model.bin": 9.0,
        "model.fp16.safetensors": 9.0,
        "onnx/model.onnx": "x",
        "checkpoint-500/model.safetensors": 9.0,
        "runs/Nov30/events.out.tfevents.2": "x",
        "eval/similarity_evaluation_results.csv": "x",
        ".gitattributes": "x",
    }
    files = {**dict.fromkeys(CONFIGURATION, "{}"), **of_one}
    there, notes = mixed(tmp_path, {**files, "model.safetensors": 1.0}, {**files, "model.safetensors": 2.0})
    assert there == {*CONFIGURATION, "model.safetensors", "README.md"}
    tops = {name.split("/")[0] + ("/" if "/" in name else "") for name in of_one}
    assert left_out(notes) == tops
    assert load_file(tmp_path / "soup" / "model.safetensors")["w"].tolist() == [1.5, 1.5]
    card = (tmp_path / "soup" / "README.md").read_text()
    assert "0.9" not in card
    assert "trainer_state.json" in card


def test_sentence_transformers_modules_keep_their_weights(tmp_path: Path) -> None:
    modules = json.dumps([{"idx": n, "path": p} for n, p in enumerate(["", "1_Pooling", "2_Dense", "3_Normalize"])])
    files: dict[str, str | float] = {
        "modules.json": modules,
        "config.json": "{}",
        "config_sentence_transformers.json": "{}",
        "sentence_bert_config.json": "{}",
        "1_Pooling/config.json": '{"pooling_mode_cls_token": true}',
        "2_Dense/config.json": '{"in_features": 4}',
    }
    one: dict[str, str | float] = {**files, "model.safetensors": 1.0, "2_Dense/model.safetensors": 10.0}
    two: dict[str, str | float] = {**files, "model.safetensors": 2.0, "2_Dense/pytorch_model.bin": 30.0}
    there, notes = mixed(tmp_path, one, two)
    assert there == {*files, "model.safetensors", "2_Dense/model.safetensors", "README.md"}
    assert notes == []
    out = tmp_path / "soup"
    assert {k: t.tolist() for k, t in load_file(out / "model.safetensors").items()} == {"w": [1.5, 1.5]}
    assert {k: t.tolist() for k, t in load_file(out / "2_Dense" / "model.safetensors").items()} == {"w": [20, 20]}
    for name in files:
        assert (out / name).read_text() == files[name]


def test_a_heads_pickle_is_copied_only_if_it_is_the_same_in_all(tmp_path: Path) -> None:
    setfit: dict[str, str | float] = {"model.safetensors": 1.0, "config_setfit.json": "{}", "model_head.pkl": "head"}
    there, notes = mixed(tmp_path / "same", setfit, {**setfit, "model.safetensors": 2.0})
    assert there == {*setfit, "README.md"}
    assert notes == []
    there, notes = mixed(tmp_path / "other", setfit, {**setfit, "model_head.pkl": "another"})
    assert "model_head.pkl" not in there
    assert left_out(notes) == {"model_head.pkl"}


def test_a_pipeline_of_diffusers_keeps_every_component(tmp_path: Path) -> None:
    parts = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
    index = {name: ["diffusers", "X"] for name in (*parts, "scheduler", "tokenizer")}
    files: dict[str, str | float] = {
        "model_index.json": json.dumps(index),
        "scheduler/scheduler_config.json": "{}",
        "tokenizer/merges.txt": "x",
        **{f"{name}/config.json": "{}" for name in parts},
    }
    weights = {f"{name}/{stem}.safetensors": float(n) for n, (name, stem) in enumerate(parts.items())}
    there, notes = mixed(
        tmp_path, {**files, **weights}, {**files, **{name: value + 1.0 for name, value in weights.items()}}
    )
    assert there == {*files, *weights, "README.md"}
    assert notes == []
    for name, value in weights.items():
        assert load_file(tmp_path / "soup" / name)["w"].tolist() == [value + 0.5] * 2


def test_every_model_of_a_folder_says_which_ingredients_it_is_from(tmp_path: Path) -> None:
    for n in (1.0, 3.0):
        write(tmp_path / f"{n}", {"open_clip_model.safetensors": n, "head.safetensors": -n})
    chosen = soup.uniform([tmp_path / "1.0", tmp_path / "3.0"])
    soup.mix(chosen, tmp_path / "soup")
    facts = []
    for name, value in (("open_clip_model", 2), ("head", -2)):
        with safe_open(tmp_path / "soup" / f"{name}.safetensors", "pt") as file:
            assert file.get_tensor("w").tolist() == [value, value]
            facts.append(json.loads(file.metadata()["modelsoups"]))
    digests = soup.library.hashes(soup.library.open_all([tmp_path / "1.0", tmp_path / "3.0"]))
    assert facts[0] == facts[1]
    assert facts[0]["hashes"] == list(digests)
    write(tmp_path / "3.0", {"head.safetensors": 7.0})
    with pytest.raises(ValueError, match=r"3\.0: not the ingredient"):
        soup.mix(chosen, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_coefficients_by_tensor_and_replaced_tensors_reach_their_model(tmp_path: Path) -> None:
    for n in (1.0, 3.0):
        write(tmp_path / f"{n}", {"open_clip_model.safetensors": n, "head.safetensors": -n})
    even = soup.uniform([tmp_path / "1.0", tmp_path / "3.0"])
    chosen = Soup("x", even.ingredients, even.hashes, {"*": [1.0, 0.0], "head.safetensors/w": [0.0, 1.0]})
    soup.mix(chosen, tmp_path / "a")
    assert load_file(tmp_path / "a" / "open_clip_model.safetensors")["w"].tolist() == [1, 1]
    assert load_file(tmp_path / "a" / "head.safetensors")["w"].tolist() == [-3, -3]
    soup.mix(even, tmp_path / "b", statistics={"head.safetensors/w": torch.full((2,), 5.0)})
    assert load_file(tmp_path / "b" / "open_clip_model.safetensors")["w"].tolist() == [2, 2]
    assert load_file(tmp_path / "b" / "head.safetensors")["w"].tolist() == [5, 5]


def test_several_models_do_not_fit_into_one_file(tmp_path: Path) -> None:
    for n in (1.0, 3.0):
        write(tmp_path / f"{n}", {"open_clip_model.safetensors": n, "head.safetensors": -n})
    chosen = soup.uniform([tmp_path / "1.0", tmp_path / "3.0"])
    with pytest.raises(ValueError, match=r"has several models .*, but a file only one; give a new folder as output"):
        soup.mix(chosen, tmp_path / "soup.safetensors")
    assert not (tmp_path / "soup.safetensors").exists()


def test_files_that_differ_between_the_folders_are_named(tmp_path: Path) -> None:
    one: dict[str, str | float] = {"model.safetensors": 1.0, "config.json": "{}", "vocab.txt": "a"}
    two: dict[str, str | float] = {"model.safetensors": 1.0, "config.json": "{}", "vocab.txt": "b", "more.json": "{}"}
    there, notes = mixed(tmp_path, one, two)
    assert there == {"model.safetensors", "config.json", "vocab.txt", "README.md"}
    assert f"vocab.txt: not the same in all folders; those of {tmp_path / 'one'} were copied" in notes
    assert left_out(notes) == {"more.json"}


def test_code_of_any_name_is_copied_and_the_soup_may_lie_in_its_ingredients_folder(tmp_path: Path) -> None:
    files: dict[str, str | float] = {"model.safetensors": 1.0, "train_metrics.py": "x"}
    folders = [write(tmp_path / "one", files), write(tmp_path / "two", {**files, "model.safetensors": 2.0})]
    notes = soup.mix(soup.uniform(folders), tmp_path / "one" / "soup")
    assert (tmp_path / "one" / "soup" / "train_metrics.py").read_text() == "x"
    copied = f"train_metrics.py: code of {folders[0]}, copied"
    assert notes == [f"{copied}; libraries run it only with trust_remote_code=True"]


def test_subfolders_of_plain_files_are_copied(tmp_path: Path) -> None:
    files: dict[str, str | float] = {"model.safetensors": 1.0, "additional_chat_templates/tool.jinja": "x"}
    there, notes = mixed(tmp_path, files, {**files, "model.safetensors": 2.0})
    assert "additional_chat_templates/tool.jinja" in there
    assert notes == []


@pytest.mark.parametrize("name", ["Qwen2.5-0.5B-soup", "soup.v2", "ü b", "y" * 255])
def test_a_folders_name_may_have_dots_and_any_length(tmp_path: Path, name: str) -> None:
    folders = [write(tmp_path / f"Qwen2.5-0.5B-ft{n}", {"model.safetensors": float(n)}) for n in range(2)]
    soup.mix(soup.uniform(folders), tmp_path / name)
    assert load_file(tmp_path / name / "model.safetensors")["w"].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("name", ["soup.pt", "soup.bin"])
def test_a_folder_is_not_written_under_the_name_of_a_file(tmp_path: Path, name: str) -> None:
    folders = [write(tmp_path / str(n), {"model.safetensors": float(n)}) for n in range(2)]
    with pytest.raises(ValueError, match=r"written as \.safetensors or as a new folder, never as"):
        soup.mix(soup.uniform(folders), tmp_path / name)


def test_nothing_is_left_when_a_later_model_cannot_be_mixed(tmp_path: Path) -> None:
    for n in (1.0, 3.0):
        write(tmp_path / f"{n}", {"open_clip_model.safetensors": n, "head.safetensors": float("nan")})
    before = set(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"1\.0/head\.safetensors: tensor w contains NaN"):
        soup.mix(soup.uniform([tmp_path / "1.0", tmp_path / "3.0"]), tmp_path / "soup")
    assert set(tmp_path.iterdir()) == before
