"""An exported text soup loads by transformers alone, in a process that has never heard of us, with the same scores."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
import yaml
from tiny_text import config, tiny

from modelsoups.cli import export
from modelsoups.config.compose import load
from modelsoups.data import shards
from modelsoups.disk import manifests, storage
from modelsoups.experiment.draw import Draw
from modelsoups.experiment.experiment import Experiment
from modelsoups.experiment.ingredients import Found, Ingredients
from modelsoups.models.classifier import state_of
from modelsoups.models.text_classifier import build
from modelsoups.recipes.recipe import Recipe
from modelsoups.soup.coefficients import Ingredient, Soup
from modelsoups.weights import state_dicts

OPTIONS = ["positive", "negative"]
TEXTS = {"one": 'The "film" was a {joy}.', "two": "a dull story"}
FRESH = """
import builtins, sys, warnings
warnings.simplefilter("ignore")
real = builtins.__import__
def refuse(name, *a, **k):
    assert not name.startswith(("modelsoups", "hydra")), name
    return real(name, *a, **k)
builtins.__import__ = refuse
"""
CASES = [
    ("roberta", {}),
    ("t5_v1_1", {}),
    ("bert", {"objective": "head"}),
    ("distilbert", {"objective": "head", "pooling": "first", "pairs": "towers"}),
]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Make a run of two ingredients with random weights, and their uniform soup; return its configuration."""

    def make(family, **text):
        data, model = tmp_path / "data", config(tiny(tmp_path, family), family, max_length=128, **text)
        entry = shards.write_shard(data / "train" / "train-000000.tar", [("0", b"x", "png", 0)])
        facts = {"name": "train", "title": "train", "role": "train", "templates": [], "projection": None}
        shards.finish_set(data / "train", {}, [entry], {**facts, "classes": OPTIONS})
        folders = [f"data.dir={data}", f"runs={tmp_path / 'run'}", f"results={tmp_path / 'results'}"]
        cfg = load([*folders, "export.row=uniform"])
        cfg.model, cfg.data.text.prompt = model, "{{x}} one: {one} | two: {two}"
        cfg.data.text.fields = {name: [name] for name in TEXTS}
        found = []
        for i in range(2):
            torch.manual_seed(i)
            state = state_of(build(model, OPTIONS, cfg.data.text.prompt, list(TEXTS)))
            state = {k: v + 0.05 * torch.randn_like(v) if v.is_floating_point() else v for k, v in state.items()}
            path = tmp_path / f"{i}.safetensors"
            storage.save_weights(path, state)
            recipe = Recipe(1e-3 * (i + 1), 0.1, 4, 0.0, 0.0, "minimal", i, 64, 40, 1.0)
            found.append(Ingredient(f"{i:03d}", str(path), state_dicts.state_sha256(state), recipe))
        monkeypatch.setattr(Ingredients, "find", lambda self: Found(found, {}))
        monkeypatch.setattr(Ingredients, "initial", lambda self: {})
        monkeypatch.setattr(Draw, "recipes", lambda self: [i.recipe for i in found])
        soup = Soup("uniform", ("000", "001"), tuple(i.sha256 for i in found), {"*": [0.5, 0.5]})
        storage.write_json(cfg.run.soup("uniform"), soup.to_json())
        return cfg

    return make


@torch.inference_mode()
def ours(cfg):
    states = [state_dicts.load_state(cfg.run.root.parent / f"{i}.safetensors") for i in range(2)]
    model = build(cfg.model, OPTIONS, cfg.data.text.prompt, list(TEXTS))
    model.load_state_dict(state_dicts.mix(states, {"*": [0.5, 0.5]}))
    return model(**model.collate(model.encode([TEXTS])).tensors)[0]


def by_the_card(folder):
    """What the code of the model card prints, and its scores, in a fresh process."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    code = re.sub("^texts = .*$", lambda found: f"given = {found[0][8:]}\ntexts = {TEXTS!r}", code, flags=re.MULTILINE)
    more = "\nassert list(given) == list(texts)\nprint(logits.tolist())"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-c", FRESH + code + more]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    label, scores = done.stdout.strip().splitlines()
    return label, torch.tensor(json.loads(scores))


@pytest.mark.parametrize(("family", "text"), CASES)
def test_an_export_gives_the_same_scores_in_a_fresh_process_without_us(family, text, run, capsys):
    cfg = run(family, **text)
    assert export.run(Experiment(cfg))
    folder = cfg.run.root / "export" / "uniform"
    label, scores = by_the_card(folder)
    expected = ours(cfg)
    assert (scores - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max()))
    assert label == OPTIONS[int(expected.argmax())]
    assert json.loads((folder / "labels.json").read_text()) == OPTIONS
    assert str(cfg.run.root.parent) not in (folder / "config.json").read_text()
    files = set(manifests.manifest_of(folder)["files"])
    assert files == {p.name for p in folder.iterdir()} - {manifests.MANIFEST}
    card = (folder / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["pipeline_tag"] == "text-classification"
    assert "Hyperparameters shared by all: weight\\_decay 0.1" in card
    assert not export.run(Experiment(cfg))
    assert "complete" in capsys.readouterr().out


def test_an_export_whose_scores_differ_is_refused(run, monkeypatch):
    cfg = run("bert")
    real = export.export_text.load
    monkeypatch.setattr(export.export_text, "load", lambda *args: lambda: 2 * real(*args)())
    with pytest.raises(ValueError, match="logits differ from the soup's"):
        export.run(Experiment(cfg))
    assert manifests.manifest_of(cfg.run.root / "export" / "uniform") is None


def test_another_prompt_is_another_export(run):
    cfg = run("bert")
    assert export.run(Experiment(cfg))
    cfg.data.text.prompt = "one: {one} | two: {two}"
    assert export.run(Experiment(cfg))
    prompt = json.loads((cfg.run.root / "export" / "uniform" / "prompt.json").read_text())["prompt"]
    assert prompt == "one: {one} | two: {two} | options: A) positive B) negative | label: [MASK] [MASK] [MASK]"
