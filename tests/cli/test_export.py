"""An exported soup loads by open_clip or timm alone, in a process that has never heard of us, with the same logits."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny import tiny_clip

from modelsoups.cli import export
from modelsoups.config.compose import load
from modelsoups.data import shards
from modelsoups.disk import manifests, storage
from modelsoups.experiment.draw import Draw
from modelsoups.experiment.experiment import Experiment
from modelsoups.experiment.ingredients import Found, Ingredients
from modelsoups.models.classifier import build, state_of
from modelsoups.recipes.recipe import Recipe
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.weights import state_dicts

NASTY = ["a|b", "<script>alert(1)</script>", "$x_1$ \\& **bold**", "[link](http://x)", "line\nbreak"]
FRESH = """
import builtins, sys
real = builtins.__import__
def refuse(name, *a, **k):
    assert not name.startswith(("modelsoups", "hydra")), name
    return real(name, *a, **k)
builtins.__import__ = refuse
"""


def setup(tmp_path, monkeypatch, *overrides):
    """A run of two ingredients with random weights, and their uniform soup."""
    data = tmp_path / "data"
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    image.save(tmp_path / "image.png")
    common = [f"data.dir={data}", f"runs={tmp_path / 'run'}", f"results={tmp_path / 'results'}", *overrides]
    cfg = load(common)
    samples = [(f"{i}", shards.encode_png(np.asarray(image)), "png", i) for i in range(len(NASTY))]
    entry = shards.write_shard(data / "train" / "train-000000.tar", samples)
    facts = {"name": "train", "title": "train", "role": "train", "classes": NASTY, "templates": [], "projection": None}
    shards.finish_set(data / "train", {}, [entry], facts)
    found = []
    for i in range(2):
        torch.manual_seed(i)
        model = build(cfg.model, len(NASTY))
        torch.nn.init.normal_(model.head.weight)
        state = {k: v + 0.01 * torch.randn_like(v) if v.is_floating_point() else v for k, v in state_of(model).items()}
        path = tmp_path / f"{i}.safetensors"
        storage.save_weights(path, state)
        recipe = Recipe(1e-3 * (i + 1), 0.1, 4, 0.0, 0.0, "minimal", i, 64, 40, 1.0)
        found.append(Ingredient(f"{i:03d}", str(path), state_dicts.state_sha256(state), recipe))
    monkeypatch.setattr(Ingredients, "find", lambda self: Found(found, {}))
    monkeypatch.setattr(Ingredients, "initial", lambda self: {})
    monkeypatch.setattr(Draw, "recipes", lambda self: [i.recipe for i in found])
    soup = Soup("uniform", ("000", "001"), tuple(i.sha256 for i in found), {"*": [0.5, 0.5]})
    storage.write_json(cfg.run.soup("uniform"), soup.to_json())
    ensemble = Soup("ensemble", ("000", "001"), tuple(i.sha256 for i in found), {"*": [0.5, 0.5]}, space="logits")
    storage.write_json(cfg.run.soup("ensemble"), ensemble.to_json())
    return load([*common, "export.row=uniform"])


def logits_by_the_card(folder, tmp_path):
    """Logits of image.png by the code of the model card, in a fresh process, and the pixels that it saw."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    code = code.replace('"image.png"', repr(str(tmp_path / "image.png")))
    more = "\nimport numpy, sys\nnumpy.savez(sys.argv[1], logits=logits.numpy(), pixels=preprocess(Image.open("
    more += f"{str(tmp_path / 'image.png')!r}).convert('RGB'))[None].numpy())"
    out = tmp_path / "out.npz"
    command = [sys.executable, "-W", "ignore", "-c", FRESH + code + more, str(out)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, env=_bare())
    assert done.returncode == 0, done.stderr
    return done.stdout, {k: torch.from_numpy(v) for k, v in np.load(out).items()}


def _bare():
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}


@torch.inference_mode()
def ours(cfg, pixels):
    """Logits of the mean of the two checkpoints, by our model."""
    states = [state_dicts.load_state(cfg.run.root.parent / f"{i}.safetensors") for i in range(2)]
    model = build(cfg.model, len(NASTY)).eval()
    model.load_state_dict(state_dicts.mix(states, {"*": [0.5, 0.5]}))
    return model(pixels)


def clip(tmp_path):
    return [*tiny_clip(tmp_path / "clip"), "model.library=open_clip"]


def backbone(tmp_path):
    timm_model = ["model.library=timm", "model.name=test_vit", "model.tag=null", "heads.init=lp"]
    return [*timm_model, "model.image_size=160", "model.normalize_features=false"]


@pytest.mark.parametrize("kind", [clip, backbone])
def test_an_export_gives_the_same_logits_in_a_fresh_process_without_us(kind, tmp_path, monkeypatch, capsys):
    cfg = setup(tmp_path, monkeypatch, *kind(tmp_path))
    assert export.run(Experiment(cfg))
    folder = cfg.run.root / "export" / "uniform"
    said, found = logits_by_the_card(folder, tmp_path)
    expected = ours(cfg, found["pixels"])
    assert (found["logits"] - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max()))
    assert said.strip("\n") == NASTY[int(expected.argmax())]
    assert json.loads((folder / "labels.json").read_text()) == NASTY
    before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert not export.run(Experiment(cfg))
    assert {p: p.stat().st_mtime_ns for p in folder.iterdir()} == before
    assert "complete" in capsys.readouterr().out


def test_names_with_control_characters_are_text_in_the_card(tmp_path, monkeypatch):
    cfg = setup(tmp_path, monkeypatch, *clip(tmp_path))
    cfg.name, cfg.data.name = "<b>name</b>|`x`", "set\n# heading [a](b)"
    export.run(Experiment(cfg))
    text = (cfg.run.root / "export" / "uniform" / "README.md").read_text()
    front, body = text.removeprefix("---\n").split("---\n", 1)
    data = yaml.safe_load(front)
    assert (data["library_name"], data["tags"]) == ("open_clip", ["model-soup", "merge", "image-classification"])
    assert str(tmp_path) not in text
    prose = re.sub(r"```.*?```", "", body, flags=re.DOTALL)
    for raw in ("<b>", "|`x`", "[a](b)", "\n# heading"):
        assert raw not in prose, raw
    assert r"\<b\>name\</b\>" in prose
    assert "| 000 | 0.5 | 0.001 |" in prose
    assert "Hyperparameters shared by all: weight\\_decay 0.1" in prose


@pytest.mark.parametrize(("row", "words"), [("ensemble", "is an ensemble"), ("greedyy", "soups: ensemble, uniform")])
def test_a_row_that_is_not_one_model_is_refused_with_those_that_are(row, words, tmp_path, monkeypatch):
    cfg = setup(tmp_path, monkeypatch, *clip(tmp_path))
    cfg.export.row = row
    with pytest.raises(ValueError, match=words):
        export.run(Experiment(cfg))
    assert not (cfg.run.root / "export").exists()


def test_an_export_whose_logits_differ_is_refused_and_a_folder_of_others_is_left_alone(tmp_path, monkeypatch):
    cfg = setup(tmp_path, monkeypatch, *clip(tmp_path))
    cfg.export.out = str(tmp_path)
    with pytest.raises(ValueError, match="contains other files"):
        export.run(Experiment(cfg))
    cfg.export.out = None
    other = {**model_config(tmp_path), "quick_gelu": False}
    monkeypatch.setattr("open_clip.get_model_config", lambda name: other)
    with pytest.raises(ValueError, match="logits differ from the soup's"):
        export.run(Experiment(cfg))
    assert manifests.manifest_of(cfg.run.root / "export" / "uniform") is None


def test_hidden_files_of_a_killed_export_are_no_foreign_files_and_go(tmp_path, monkeypatch):
    cfg = setup(tmp_path, monkeypatch, *clip(tmp_path))
    folder = cfg.run.root / "export" / "uniform"
    folder.mkdir(parents=True)
    for name in (".tmp0prlm4", ".head.safetensors.123.tmp", ".gitattributes", ".notes.tmp", "labels.json"):
        (folder / name).write_text("half")
    assert export.run(Experiment(cfg))
    assert {p.name for p in folder.iterdir() if p.name.startswith(".")} == {".gitattributes", ".notes.tmp"}
    assert json.loads((folder / "labels.json").read_text()) == NASTY


def model_config(tmp_path):
    return json.loads((tmp_path / "clip" / "open_clip_config.json").read_text())["model_cfg"]


def test_a_push_without_a_login_says_how_before_anything_is_written(tmp_path, monkeypatch):
    cfg = setup(tmp_path, monkeypatch, *clip(tmp_path))
    cfg.export.push = "me/soup"
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ValueError, match="hf auth login"):
        export.run(Experiment(cfg))
    assert not (cfg.run.root / "export").exists()


def test_a_push_uploads_the_folder(tmp_path, monkeypatch):
    cfg = setup(tmp_path, monkeypatch, *clip(tmp_path))
    cfg.export.push = "me/soup"
    calls = []
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_x")
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda self, *a, **k: calls.append((a, k)))
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda self, **k: calls.append(k))
    export.run(Experiment(cfg))
    assert calls[0] == (("me/soup",), {"private": True, "exist_ok": True})
    assert calls[1]["folder_path"] == cfg.run.root / "export" / "uniform"
    assert calls[1]["ignore_patterns"] == ["manifest.json", ".*"]
