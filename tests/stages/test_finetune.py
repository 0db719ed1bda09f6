"""Fine-tuning one ingredient: resumed to the bit, bad input named, divergence recorded, nothing half-written."""

import dataclasses
import errno
import functools
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import time
import warnings

import numpy as np
import pytest
import torch
from pico import arguments, broken_off
from safetensors.torch import load_file

from modelsoups.config.compose import load
from modelsoups.data import loader, order
from modelsoups.disk import manifests, storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.experiment.ingredients import load_weights
from modelsoups.models.classifier import state_of
from modelsoups.recipes.recipe import Recipe
from modelsoups.soup.coefficients import Ingredient
from modelsoups.stages import finetune, heads, sweep
from modelsoups.stages.finetune import fine_tune
from modelsoups.train import metrics_file, resume
from modelsoups.train.trainer import Trainer, Workspace
from modelsoups.weights import state_dicts


@pytest.fixture(scope="module")
def begun(tmp_path_factory, data):
    """A run folder with its initial models and draw."""
    home = tmp_path_factory.mktemp("begun")
    cfg = load([*arguments(home, data), f"runs={home / 'run'}", "finetune.parallel=1"])
    heads.run(Experiment(cfg))
    sweep.run(Experiment(cfg))
    return home


@pytest.fixture
def cfg(begun, data, tmp_path):
    shutil.copytree(begun / "run", tmp_path / "run")
    return load([*arguments(begun, data), f"runs={tmp_path / 'run'}", "finetune.parallel=1", "ingredient=0"])


def straight(cfg):
    assert fine_tune(Experiment(cfg), Experiment(cfg).draw.recipes()[0], 0) is None
    return cfg.run.ingredient(0)


@pytest.fixture(scope="module")
def undisturbed(begun, data, tmp_path_factory):
    """Bytes of the weights and rows of the metrics of ingredient 0, made in one go."""
    home = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(begun / "run", home / "run")
    folder = straight(load([*arguments(begun, data), f"runs={home / 'run'}", "finetune.parallel=1", "ingredient=0"]))
    return (folder / "model.safetensors").read_bytes(), metrics(folder)


def same(folder, undisturbed):
    """Whether an ingredient is what it would be undisturbed, with nothing left over."""
    assert (folder / "model.safetensors").read_bytes() == undisturbed[0]
    assert metrics(folder) == undisturbed[1]
    names = ["manifest.json", "metrics.jsonl", "model.safetensors", "recipe.json"]
    return sorted(p.name for p in folder.iterdir()) == names


def break_off(cfg, monkeypatch, steps):
    """Stop in the middle of a step, as a kill does, after so many."""
    with broken_off(monkeypatch, at=steps):
        straight(cfg)


def metrics(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "timing"} for row in rows]


def test_metrics_have_a_row_a_step_with_the_clock_apart(undisturbed):
    rows = undisturbed[1]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert all(row.keys() == {"step", "epoch", "loss", "lr"} for row in rows)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_run_broken_off_at_any_step_ends_as_if_it_had_not_been(cfg, monkeypatch, undisturbed, steps):
    break_off(cfg, monkeypatch, steps)
    assert not (cfg.run.ingredient(0) / "model.safetensors").exists()
    assert same(straight(cfg), undisturbed)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def killed(cfg, patch):
    """Whether a process that trains under a patch dies of kill -9."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons: of forking; nothing else runs here
        child = os.fork()
    if child == 0:
        try:
            patch()
            straight(cfg)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def dying_at_rename(name, before):
    """Die before or after a file gets its final name: everything durable is written so."""
    rename = os.replace

    def replace(source, target):
        found = os.path.basename(target) == name
        if found and before:
            die()
        rename(source, target)
        if found:
            die()

    os.replace = replace


def dying_in_a_line_of_metrics(at):
    def append(metrics, row):
        with open(metrics, "a") as file:
            file.write(json.dumps(row)[:20] if row["step"] == at else json.dumps(row) + "\n")
        if row["step"] == at:
            die()

    metrics_file.append = append


def test_killed_again_and_again_it_ends_as_if_it_had_not_been(cfg, undisturbed):
    """kill -9 before and after each file is there, and in the middle of a line, in one folder, one after the other."""
    assert killed(cfg, functools.partial(dying_in_a_line_of_metrics, 1))
    for name, before in itertools.product(["recipe.json", "checkpoint.pt"], [True, False]):
        assert killed(cfg, functools.partial(dying_at_rename, name, before)), name
    assert killed(cfg, functools.partial(dying_in_a_line_of_metrics, 3))  # after a checkpoint, before the next
    for name, before in itertools.product(["model.safetensors", "manifest.json"], [True, False]):
        assert manifests.manifest_of(cfg.run.ingredient(0)) is None
        assert killed(cfg, functools.partial(dying_at_rename, name, before)), name
    assert (cfg.run.ingredient(0) / "checkpoint.pt").exists()  # the kill came between the manifest and its removal
    assert finetune.run(Experiment(cfg)) is False
    assert same(cfg.run.ingredient(0), undisturbed)


@pytest.mark.parametrize("damage", [lambda b: b[:5000], lambda b: b[:300_000] + bytes([b[300_000] ^ 1]) + b[300_001:]])
def test_a_damaged_checkpoint_is_said_and_begun_anew(cfg, monkeypatch, capsys, undisturbed, damage):
    break_off(cfg, monkeypatch, 3)
    path = cfg.run.ingredient(0) / "checkpoint.pt"
    path.write_bytes(damage(path.read_bytes()))
    folder = straight(cfg)
    assert "checkpoint.pt is damaged" in capsys.readouterr().out
    assert same(folder, undisturbed)


def test_a_checkpoint_of_another_recipe_is_refused(cfg, monkeypatch):
    break_off(cfg, monkeypatch, 3)
    folder, recipes = cfg.run.ingredient(0), Experiment(cfg).draw.recipes()
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(ValueError, match=r"checkpoint\.pt is from a run with another recipe"):
        fine_tune(Experiment(cfg), recipes[1], 0)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_resume_with_other_code_is_said_and_recorded(cfg, monkeypatch, capsys):
    break_off(cfg, monkeypatch, 3)
    before, now = resume.code(), "0123456789ab (commit fedcba987)"
    monkeypatch.setattr(resume, "code", lambda: now)
    finetune.run(Experiment(cfg))
    assert f"resumes with the code {now} instead of {before}; the result may not be" in capsys.readouterr().out
    assert json.loads((cfg.run.ingredient(0) / "manifest.json").read_text())["codes"] == [before, now]


def test_a_value_that_the_draw_does_not_have_is_refused(cfg):
    other = dataclasses.replace(cfg, recipe=cfg.recipe | {"batch_size": 26}, overrides=("recipe.batch_size=26",))
    with pytest.raises(ValueError, match=r"recipe\.batch_size=26, but .*draw\.jsonl has 64; recipes are fixed once"):
        finetune.run(Experiment(other))


def test_a_list_is_the_value_that_the_draw_has(cfg):
    same = dataclasses.replace(cfg, recipe=cfg.recipe | {"ema": [0.9]}, overrides=("recipe.ema=[0.9]",))
    recipes = [dataclasses.replace(r, ema=(0.9,)) for r in Experiment(cfg).draw.recipes()]
    finetune._check_drawn(Experiment(same), recipes)
    with pytest.raises(ValueError, match=r"recipe\.ema=\[0\.9\], but .* has \(\)"):
        finetune._check_drawn(Experiment(same), Experiment(cfg).draw.recipes())


def test_a_finished_ingredient_is_fixed(cfg, data):
    straight(cfg)
    manifest = cfg.run.ingredient(0) / "manifest.json"
    content = json.loads(manifest.read_text())
    content["inputs"]["recipe"]["lr"] = 0.5
    manifest.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="trained with a different recipe; choose another run with name"):
        finetune.run(Experiment(cfg))


def test_divergence_is_recorded_with_its_step_and_ends_the_ingredient(cfg, monkeypatch, capsys):
    update = Trainer.update

    def diverging(self, *batch):
        loss = update(self, *batch)
        return loss * float("nan") if self.step == 2 else loss

    cfg.finetune.log_every = 50
    monkeypatch.setattr(Trainer, "update", diverging)
    reason = fine_tune(Experiment(cfg), Experiment(cfg).draw.recipes()[0], 0)
    folder = cfg.run.ingredient(0)
    assert reason == "the loss is nan at step 3"
    failed = json.loads((folder / "failed.json").read_text())
    assert failed.pop("inputs")["recipe"] == json.loads((folder / "recipe.json").read_text())
    assert failed == {"reason": reason, "step": 3, "loss": "nan"}
    assert not (folder / "model.safetensors").exists()
    assert not (folder / "checkpoint.pt").exists()
    with pytest.raises(ValueError, match=r"ingredient 000: the loss is nan at step 3; move .*000 away to try it again"):
        finetune.run(Experiment(cfg))
    (cfg.run.draw).write_text(cfg.run.draw.read_text().splitlines()[0] + "\n")
    cfg.ingredient = None
    assert finetune.run(Experiment(cfg)) is False  # failed before: named, not tried again
    assert "ingredient 000: the loss is nan at step 3; soups are chosen without it" in capsys.readouterr().out


def test_a_gpus_losses_are_fetched_a_line_later_and_make_the_same_file(cfg, monkeypatch, undisturbed):
    monkeypatch.setattr("modelsoups.train.device.Device.deferred", True)
    cfg.finetune.checkpoint_every = 3
    assert same(straight(cfg), undisturbed)


def test_a_gpus_divergence_is_found_before_a_checkpoint_of_it_is_written(cfg, monkeypatch):
    update, saved = Trainer.update, []

    def diverging(self, *batch):
        loss = update(self, *batch)
        return loss * float("nan") if self.step >= 2 else loss

    monkeypatch.setattr("modelsoups.train.device.Device.deferred", True)
    monkeypatch.setattr(Trainer, "update", diverging)
    monkeypatch.setattr(resume, "save", lambda path, state: saved.append(state["step"]))
    cfg.finetune.log_every = 50
    assert (
        fine_tune(Experiment(cfg), Experiment(cfg).draw.recipes()[0], 0) == "the loss is nan at step 4"
    )  # a checkpoint every 2 steps
    assert saved == [2]
    shutil.rmtree(cfg.run.ingredient(0))
    cfg.finetune.log_every, cfg.finetune.checkpoint_every = 1, 50
    assert (
        fine_tune(Experiment(cfg), Experiment(cfg).draw.recipes()[0], 0) == "the loss is nan at step 3"
    )  # seen when the line after it is begun


def test_a_loss_that_stays_finite_and_far_too_high_ends_the_ingredient_wherever_it_was_resumed(cfg, monkeypatch):
    update = Trainer.update
    monkeypatch.setattr(Trainer, "update", lambda self, batch: update(self, batch) + (50 if self.step else 0))
    break_off(cfg, monkeypatch, 4)  # 50 is above 3 ln 80; high since step 2, as checkpoints say
    reason = fine_tune(Experiment(cfg), Experiment(cfg).draw.recipes()[0], 0)
    assert re.fullmatch(r"the loss diverged: above 13\.15 since step 2, and 5\d\.\d+ at step 5", reason)
    assert json.loads((cfg.run.ingredient(0) / "failed.json").read_text())["step"] == 5


def test_a_failure_of_another_recipe_does_not_count(cfg, monkeypatch):
    monkeypatch.setattr(Trainer, "update", lambda self, *batch: torch.tensor(float("inf")))
    assert fine_tune(Experiment(cfg), Experiment(cfg).draw.recipes()[1], 0) == "the loss is inf at step 1"
    with pytest.raises(ValueError, match="trained with a different recipe"):
        finetune.run(Experiment(cfg))


def test_a_learning_rate_that_explodes_does_not_stop_the_sweep(cfg, data, capsys):
    rows = storage.read_jsonl(cfg.run.draw)
    rows[0]["recipe"] |= {"lr": 10.0, "clip": 1e9, "weight_decay": 50.0}
    storage.write_jsonl(cfg.run.draw, rows)
    with pytest.raises(ValueError, match=r"ingredient 000: (the loss is|weights are not finite)"):
        finetune.run(Experiment(cfg))
    cfg.ingredient = None
    finetune.run(Experiment(cfg))
    assert (cfg.run.ingredient(1) / "manifest.json").exists()
    said = capsys.readouterr().out
    assert "1 of 3 ingredients are done already" in said
    assert "ingredient 000: " in said


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


@pytest.fixture
def small_disk(cfg):
    """A disk of its own for the ingredients, with room for the metrics but for no checkpoint."""
    folder = cfg.run.ingredient(0).parent
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_and_one_that_cannot_be_written_cost_nothing_but_time(cfg, small_disk, undisturbed):
    with pytest.raises(OSError, match=r"could not write .*000/checkpoint\.pt: No space left on device"):
        straight(cfg)
    assert sorted(p.name for p in cfg.run.ingredient(0).iterdir()) == ["metrics.jsonl", "recipe.json"]
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OSError, match=r"could not write .*000/metrics\.jsonl: Read-only file system"):
        straight(cfg)
    subprocess.run(["mount", "-o", "remount,rw,size=64m", str(small_disk)], check=True)
    assert same(straight(cfg), undisturbed)


def test_a_batch_larger_than_the_training_set_is_refused(cfg):
    rows = storage.read_jsonl(cfg.run.draw)
    recipe = Recipe(**{**rows[0]["recipe"], "batch_size": 5000})
    with pytest.raises(ValueError, match="batch_size=5000"):
        fine_tune(Experiment(cfg), recipe, 0)


def test_the_ingredient_differs_from_its_start_and_is_float32(cfg):
    folder = straight(cfg)
    facts = manifests.manifest_of(folder)
    assert (facts["steps"], facts["images"]) == (5, 320)
    assert facts["loss"] == metrics(folder)[-1]["loss"]
    state, start = load_file(folder / "model.safetensors"), load_file(cfg.run.head("lp") / "model.safetensors")
    assert state.keys() == start.keys()
    assert all(t.dtype == torch.float32 for t in state.values())
    assert not torch.equal(state["head.weight"], start["head.weight"])


def test_weights_that_changed_after_they_were_made_are_refused(cfg):
    path = straight(cfg) / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    manifest = manifests.manifest_of(path.parent)
    assert manifest is not None  # its size is as it was
    ingredient = Ingredient("000", str(path), manifest["sha256"], None)
    with pytest.raises(ValueError, match=r"000/model\.safetensors has changed since it was written"):
        load_weights(ingredient)
    path.write_bytes(content)
    assert load_weights(ingredient).keys() == load_file(path).keys()


def test_integer_buffers_stay_integers(tmp_path):
    storage.save_weights(tmp_path / "model.safetensors", state_of(torch.nn.BatchNorm1d(2)))
    assert load_file(tmp_path / "model.safetensors")["num_batches_tracked"].dtype == torch.int64


def test_an_initial_model_of_another_shape_is_named(cfg, tmp_path):
    experiment = Experiment(cfg)
    recipe, train = experiment.draw.recipes()[0], experiment.sets.train
    foreign = tmp_path / "foreign.safetensors"
    storage.save_weights(foreign, {"head.weight": torch.zeros(3, 5)})
    initial = Ingredient("initialization", str(foreign), state_dicts.state_sha256(load_file(foreign)), None)
    model, workspace = experiment.classifier(len(train.classes)), Workspace(tmp_path, "x")
    trainer = Trainer(experiment.task, recipe, cfg.finetune, model, train, workspace)
    says = r"foreign\.safetensors does not fit the configured model .* with the 80 classes of .*; write it again"
    with pytest.raises(ValueError, match=says):
        trainer.load(initial)


@pytest.fixture
def decoding_apart(monkeypatch):
    """Images come from a process of their own, as those of a large set do."""
    monkeypatch.setattr(loader, "KEEP_DECODED", 0)
    monkeypatch.setattr(loader, "cores", lambda: 3)


def test_a_decoding_process_that_dies_is_said_and_costs_nothing_but_time(cfg, monkeypatch, undisturbed, decoding_apart):
    taken = loader.Augmented.__getitem__

    def dying(self, key):
        if key == (0, int(order.epoch_order(320, self.recipe.seed, 0)[3 * 64 + 5])):
            until = time.monotonic() + 60
            while not (cfg.run.ingredient(0) / "checkpoint.pt").exists() and time.monotonic() < until:
                time.sleep(0.05)
            die()
        return taken(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(loader.Augmented, "__getitem__", dying)
        with pytest.raises(RuntimeError, match=r"^a process that decodes training images died .* last checkpoint$"):
            straight(cfg)
    assert resume.newest(cfg.run.ingredient(0))[0] is not None
    assert same(straight(cfg), undisturbed)


def test_images_that_were_skipped_stand_in_the_manifest_also_after_a_resume(cfg, data, tmp_path, monkeypatch):
    shutil.copytree(data / "train", tmp_path / "data" / "train")
    shutil.copytree(data / "holdout", tmp_path / "data" / "holdout")
    cfg.data.dir, cfg.finetune.skip_corrupt = str(tmp_path / "data"), 1
    train = Experiment(cfg).sets[cfg.data.train]
    index = int(order.epoch_order(320, Experiment(cfg).draw.recipes()[0].seed, 0)[3])  # in the first batch
    (tar,) = (tmp_path / "data" / "train").glob("*.tar")
    with open(tar, "r+b") as file:
        file.seek(int(np.load(tar.with_suffix(".npz"))["offset"][index]) + 60)
        file.write(b"x" * 100)
    os.utime(tar, (1, 1))  # a disk that decays leaves the time
    break_off(cfg, monkeypatch, 4)
    assert manifests.manifest_of(straight(cfg))["skipped"] == [train.keys_N[index]]
    other = storage.read_jsonl(cfg.run.draw)
    cfg.finetune.skip_corrupt = 0
    shutil.rmtree(cfg.run.ingredient(0))
    with pytest.raises(ValueError, match=f"image {train.keys_N[index]} is corrupt"):
        straight(cfg)
    assert storage.read_jsonl(cfg.run.draw) == other


def test_a_disk_that_fills_during_a_later_checkpoint_leaves_the_one_before(cfg, monkeypatch, undisturbed):
    save = resume.save

    def full(path, state):
        if state["step"] < 4:
            return save(path, state)
        with monkeypatch.context() as patch:
            patch.setattr(
                os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))
            )
            return save(path, state)

    with monkeypatch.context() as patch:
        patch.setattr(resume, "save", full)
        with pytest.raises(OSError, match=r"could not write .*checkpoint\.pt: No space left on device"):
            straight(cfg)
    name, damaged = resume.newest(cfg.run.ingredient(0))
    assert damaged == []
    assert resume.load(cfg.run.ingredient(0) / name)["step"] == 2
    assert same(straight(cfg), undisturbed)


def test_another_way_of_decoding_makes_another_ingredient(cfg):
    folder = straight(cfg)
    assert "decode" not in manifests.manifest_of(folder)["inputs"]  # as before there was a choice
    cfg.finetune.decode = "turbo"
    with pytest.raises(ValueError, match="trained with a different decode"):
        finetune.run(Experiment(cfg))
    shutil.rmtree(folder)
    assert manifests.manifest_of(straight(cfg))["inputs"]["decode"] == "turbo"


def test_models_that_share_images_have_one_order_of_them_recorded_in_their_recipes(cfg, tmp_path):
    with pytest.raises(ValueError, match=r"no common order_seed; draw them with finetune\.share=true too"):
        finetune.run(Experiment(load([*cfg.overrides, "finetune.share=true", "ingredient=null"])))
    shutil.copytree(cfg.run.root / "init", tmp_path / "shared" / "init")
    more = [f"runs={tmp_path / 'shared'}", "finetune.share=true", "finetune.parallel=2", "ingredient=null"]
    shared = load([*cfg.overrides, *more])
    sweep.run(Experiment(shared))
    recipes = Experiment(shared).draw.recipes()
    assert {recipe.order_seed for recipe in recipes} == {shared.data.seed}
    assert len({recipe.seed for recipe in recipes}) == len(recipes)
    finetune.run(Experiment(shared))
    beside = load_file(shared.run.ingredient(1) / "model.safetensors")
    shutil.rmtree(shared.run.ingredients)
    assert fine_tune(Experiment(shared), recipes[1], 1) is None
    alone = load_file(shared.run.ingredient(1) / "model.safetensors")
    assert all(torch.equal(beside[key], tensor) for key, tensor in alone.items())
