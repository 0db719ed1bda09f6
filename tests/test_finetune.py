"""Fine-tuning one ingredient: resumed to the bit, bad input named, divergence recorded, nothing half-written."""

import errno
import json
import os
import shutil

import pytest
import torch
from pico import arguments
from safetensors.torch import load_file

from modelsoups import finetune, heads, runs, sweep
from modelsoups.config import load
from modelsoups.core.types import Recipe
from modelsoups.finetune import Trainer, _finetune, load_checkpoint
from modelsoups.sweep import load_draw


@pytest.fixture(scope="module")
def begun(tmp_path_factory, data):
    """A run folder with its initial models and draw."""
    home = tmp_path_factory.mktemp("begun")
    cfg = load([*arguments(home, data), f"runs={home / 'run'}", "finetune.parallel=1"])
    heads.run(cfg)
    sweep.run(cfg)
    return home


@pytest.fixture
def cfg(begun, data, tmp_path):
    shutil.copytree(begun / "run", tmp_path / "run")
    return load([*arguments(begun, data), f"runs={tmp_path / 'run'}", "finetune.parallel=1", "ingredient=0"])


def straight(cfg):
    assert _finetune(cfg, load_draw(cfg), 0) is None
    return cfg.run.ingredient(0)


class Stop(Exception):
    pass


def break_off(cfg, monkeypatch, steps):
    """Stop in the middle of a step, as a kill does, after so many."""
    update = Trainer._update

    def counted(self, *batch):
        if self.step == steps:
            raise Stop
        return update(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", counted)
        with pytest.raises(Stop):
            straight(cfg)


def metrics(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "timing"} for row in rows]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_run_broken_off_at_any_step_ends_as_if_it_had_not_been(cfg, tmp_path, monkeypatch, steps):
    folder = straight(cfg)
    expected, rows = (folder / "model.safetensors").read_bytes(), metrics(folder)
    shutil.rmtree(folder)
    break_off(cfg, monkeypatch, steps)
    assert not (folder / "model.safetensors").exists()
    straight(cfg)
    assert (folder / "model.safetensors").read_bytes() == expected
    assert metrics(folder) == rows
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert not (folder / "checkpoint.pt").exists()


def test_a_damaged_checkpoint_is_said_and_begun_anew(cfg, monkeypatch, capsys):
    folder = straight(cfg)
    expected = (folder / "model.safetensors").read_bytes()
    shutil.rmtree(folder)
    break_off(cfg, monkeypatch, 3)
    checkpoint = folder / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    assert load_checkpoint(checkpoint) is None
    straight(cfg)
    assert "checkpoint.pt is damaged" in capsys.readouterr().out
    assert (folder / "model.safetensors").read_bytes() == expected


def test_a_checkpoint_of_another_recipe_is_refused(cfg, monkeypatch):
    break_off(cfg, monkeypatch, 3)
    recipes = load_draw(cfg)
    with pytest.raises(ValueError, match=r"checkpoint\.pt belongs to another recipe"):
        _finetune(cfg, [recipes[1]], 0)


def test_a_finished_ingredient_is_fixed(cfg, data):
    straight(cfg)
    manifest = cfg.run.ingredient(0) / "manifest.json"
    content = json.loads(manifest.read_text())
    content["inputs"]["recipe"]["lr"] = 0.5
    manifest.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="made from another recipe; an ingredient is fixed once made"):
        finetune.run(cfg)


def test_divergence_ends_the_ingredient_with_a_recorded_reason(cfg, monkeypatch):
    monkeypatch.setattr(Trainer, "_update", lambda self, *batch: torch.tensor(float("nan")))
    reason = _finetune(cfg, load_draw(cfg), 0)
    assert reason == "the loss is nan at step 1"
    failed = json.loads((cfg.run.ingredient(0) / "failed.json").read_text())
    assert failed == {"reason": reason, "step": 1}
    assert not (cfg.run.ingredient(0) / "model.safetensors").exists()


def test_a_learning_rate_that_explodes_does_not_stop_the_sweep(cfg, data, capsys):
    rows = runs.read_jsonl(cfg.run.draw)
    rows[0]["recipe"] |= {"lr": 10.0, "clip": 1e9, "weight_decay": 50.0}
    runs.write_jsonl(cfg.run.draw, rows)
    with pytest.raises(ValueError, match=r"ingredient 000: (the loss is|weights are not finite)"):
        finetune.run(cfg)
    cfg.ingredient = None
    finetune.run(cfg)
    assert (cfg.run.ingredient(1) / "manifest.json").exists()
    assert "1 of 3 ingredients are done already" in capsys.readouterr().out


def test_a_full_disk_names_the_file_and_leaves_nothing_half_written(cfg, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    (cfg.run.ingredient(0)).mkdir(parents=True)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"could not write .*recipe\.json: No space left on device"):
        straight(cfg)
    assert [p.name for p in cfg.run.ingredient(0).iterdir()] == []


def test_a_folder_that_cannot_be_written_is_named(cfg):
    cfg.run.ingredient(0).parent.mkdir()
    cfg.run.ingredient(0).write_text("in the way")  # root may write anywhere: a file in the folder's place does it
    with pytest.raises(OSError, match="000"):
        straight(cfg)


def test_a_batch_larger_than_the_training_set_is_refused(cfg):
    rows = runs.read_jsonl(cfg.run.draw)
    recipe = Recipe(**{**rows[0]["recipe"], "batch_size": 5000})
    with pytest.raises(ValueError, match="batch_size=5000"):
        _finetune(cfg, [recipe], 0)


def test_the_ingredient_differs_from_its_start_and_is_float32(cfg):
    folder = straight(cfg)
    state, start = load_file(folder / "model.safetensors"), load_file(cfg.run.head("lp") / "model.safetensors")
    assert state.keys() == start.keys()
    assert all(t.dtype == torch.float32 for t in state.values())
    assert not torch.equal(state["head.weight"], start["head.weight"])
