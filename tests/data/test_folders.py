"""A data set of one's own, in class folders, from files to shards; a soup method of one's own."""

import numpy as np
import pytest
from PIL import Image

from modelsoups.cli import commands, pipeline
from modelsoups.config.compose import load
from modelsoups.config.recall import open_run
from modelsoups.data import folders
from modelsoups.data.shards import ShardSet, check_disjoint
from modelsoups.experiment.experiment import Experiment
from modelsoups.soup import methods
from modelsoups.stages import prepare
from modelsoups.stages.soup import plan

SETS = {"train": "abc", "holdout": "abc", "test": "abc", "night": "ca"}


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    """Two images a class and set; conf/data/mine.yaml as the guide has it."""
    monkeypatch.chdir(tmp_path)
    for s, (name, classes) in enumerate(SETS.items()):
        for c, folder in enumerate(classes):
            for i in range(2):
                picture(tmp_path / "images" / name / folder / f"{i}.{'png' if i else 'jpg'}", 100 * s + 10 * c + i)
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "mine.yaml").write_text(
        "name: mine\nlibrary: folders\ndir: data/mine\nroot: images\ntrain: train\nholdout: holdout\ntest: test\n"
        "shifts: [night]\n"
    )
    return load(["data=mine", "name=mine"])


def test_class_folders_become_shards(cfg, capsys):
    assert prepare.run(Experiment(cfg))
    train, night = (ShardSet(cfg.run.root.parents[1] / "data" / "mine" / name) for name in ("train", "night"))
    assert (len(train), train.classes, train.labels_N.tolist()) == (6, ["a", "b", "c"], [0, 0, 1, 1, 2, 2])
    assert (night.role, night.projection) == ("shift", {"kind": "subset", "indices": [0, 2]})
    assert night.labels_N.tolist() == [0, 0, 1, 1]
    assert night.image(0).size == (8, 8)
    assert not prepare.run(Experiment(cfg))
    assert "complete" in capsys.readouterr().out


def test_what_is_wrong_with_the_folders_is_said(cfg, tmp_path):
    picture(tmp_path / "images/night/owl/0.png", 0)
    with pytest.raises(ValueError, match="night/owl: train has no class owl"):
        folders.inputs(cfg.data, cfg.protocol, "night")
    for file in (tmp_path / "images/test/b").iterdir():
        file.unlink()
    (tmp_path / "images/test/b").rmdir()
    with pytest.raises(ValueError, match="images/test: no folder for class b"):
        folders.inputs(cfg.data, cfg.protocol, "test")
    with pytest.raises(ValueError, match="images/rain is missing"):
        folders.names(load(["data=mine", "name=mine", "data.shifts=[rain]"]).data)


def test_an_image_in_train_and_holdout_is_noticed(cfg, tmp_path):
    (tmp_path / "images/holdout/a/2.jpg").write_bytes((tmp_path / "images/train/a/0.jpg").read_bytes())
    prepare.run(Experiment(cfg))
    with pytest.raises(ValueError, match=r"holdout and .*train share 1 images, first"):
        check_disjoint(ShardSet(tmp_path / "data/mine/train"), ShardSet(tmp_path / "data/mine/holdout"))


def test_a_run_that_was_only_prepared_is_opened_by_its_name(cfg, tmp_path):
    pipeline.run_stages(commands.modules_of(["prepare"]), cfg)
    assert open_run(["name=mine"]).data == cfg.data


def test_a_method_of_ones_own_is_one_function_and_one_line(monkeypatch):
    monkeypatch.setitem(methods.METHODS, "every_other", methods.METHODS["uniform"])
    orders = plan(Experiment(load(["soup.also=[every_other]"])), 4)
    assert [o.method for o in orders if o.row == "every_other"] == ["every_other"]
    with pytest.raises(ValueError, match=r"soup.also: no soup method medain; expected .*uniform"):
        plan(Experiment(load(["soup.also=[medain]"])), 4)
    with pytest.raises(ValueError, match=r"modelsoups.soup.methods:greedy: a soup named greedy already exists"):
        plan(Experiment(load(["soup.also=['modelsoups.soup.methods:greedy']"])), 4)
    with pytest.raises(ValueError, match=r"soup.also: wise_ft is always computed"):
        plan(Experiment(load(["soup.also=[wise_ft]"])), 4)
    with pytest.raises(ValueError, match=r"soup.also: expected a list, such as \[a,b\]"):
        load(["soup.also=uniform"])
