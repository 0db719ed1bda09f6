"""A data set of one's own, in class folders, from files to shards; a soup method of one's own."""

import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from modelsoups.cli import commands, pipeline
from modelsoups.config.compose import load
from modelsoups.config.recall import open_run
from modelsoups.data import folders
from modelsoups.data.shards import ShardSet, check_test
from modelsoups.disk import storage
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


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("holdout/a/2.jpg", r"train/a/0\.jpg and .*holdout/a/2\.jpg are the same image, one of 1 that train and hold"),
        ("test/a/2.jpg", r"train/a/0\.jpg and .*test/a/2\.jpg are the same image, one of 1 that train and test share"),
        (
            "train/b/2.jpg",
            r"train/a/0\.jpg and .*train/b/2\.jpg are the same image in two classes, one of 1 such images",
        ),
        ("night/c/9.jpg", None),
        ("train/a/2.jpg", None),  # a copy beside it changes no result silently
    ],
)
def test_an_image_in_two_sets_or_classes_is_refused_before_anything_is_written(cfg, tmp_path, capsys, place, said):
    (tmp_path / "images" / place).write_bytes((tmp_path / "images/train/a/0.jpg").read_bytes())
    if said is None:
        prepare.run(Experiment(cfg))
        noted = "night shares 1 images with train, such as" in capsys.readouterr().out
        assert noted == place.startswith("night")
        return
    with pytest.raises(ValueError, match=said):
        prepare.run(Experiment(cfg))
    assert not (tmp_path / "data/mine/train").exists()


def test_a_shift_of_images_that_soups_are_chosen_on_is_noted(cfg, tmp_path, capsys):
    for name in ("train", "holdout"):
        content = (tmp_path / "images" / name / "a/0.jpg").read_bytes()
        (tmp_path / "images/night/a" / f"{name}.jpg").write_bytes(content)
    prepare.run(Experiment(cfg))
    lines = [line for line in capsys.readouterr().out.splitlines() if "night shares 1 images" in line]
    assert len(lines) == 2
    assert all(line.endswith("; accuracies on these images are too high") for line in lines)


def test_an_image_of_the_holdout_in_a_test_set_that_comes_later_is_refused(cfg, tmp_path):
    """The sets that are complete are compared too, by the keys of their shards."""
    prepare.run(Experiment(cfg))
    shutil.rmtree(tmp_path / "data/mine/test")
    (tmp_path / "images/test/c/0.jpg").write_bytes((tmp_path / "images/holdout/a/1.png").read_bytes())
    with pytest.raises(ValueError, match=r"images/holdout/a/1\.png, and images/test/c/0\.jpg are the same image"):
        prepare.run(Experiment(cfg))


def test_sets_that_an_earlier_version_prepared_are_compared_before_training(cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(folders.overlaps, "refuse", lambda *_: None)
    (tmp_path / "images/test/a/2.jpg").write_bytes((tmp_path / "images/holdout/a/0.jpg").read_bytes())
    prepare.run(Experiment(cfg))
    train, holdout, test = (ShardSet(tmp_path / "data/mine" / name) for name in ("train", "holdout", "test"))
    check_test(test, [train])
    with pytest.raises(ValueError, match=r"test and .*holdout share 1 images, first \w{16}; soups must be"):
        check_test(test, [train, holdout])


def test_files_that_are_no_images_are_named_before_anything_is_written(cfg, tmp_path):
    """Also when nothing else is asked for: the headers of all files are looked at."""
    file = tmp_path / "images/test/c/7.jpg"
    bomb = r"Image size \(900000000 pixels\) exceeds limit of 178956970 pixels"
    wrong = {b"%!PS-Adobe-3.0 EPSF-3.0\n%%EOF\n": "its content is not JPEG, .*", b"": "the file is empty"}
    for content, said in {**wrong, b"P5 30000 30000 255\n": bomb}.items():
        file.write_bytes(content)
        with pytest.raises(ValueError, match=rf"test/c/7\.jpg cannot be decoded \(.*{said}\); put a whole image"):
            prepare.run(Experiment(cfg))
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ValueError, match=r"test/c/7\.jpg is not a regular file but a pipe"):
        prepare.run(Experiment(cfg))
    assert not (tmp_path / "data/mine").exists()


def test_an_image_that_is_damaged_in_the_middle_is_named_by_its_file(cfg, tmp_path):
    file = tmp_path / "images/train/b/1.png"
    content = bytearray(file.read_bytes())
    content[60:70] = bytes(10)
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"train/b/1\.png cannot be decoded \(.*\); put a whole image in"):
        prepare.run(Experiment(load(["data=mine", "name=mine", "data.verify=true"])))
    prepare.run(Experiment(cfg))
    message = r"train-000000\.tar: image \w{16}, made from images/train/b/1\.png, is corrupt \(.*\); if the original"
    with pytest.raises(ValueError, match=message):
        ShardSet(tmp_path / "data/mine/train").image(3)


def test_the_right_files_are_read_and_the_others_are_listed(cfg, tmp_path, capsys):
    """Classes of a Mac in another Unicode form, deeper folders, and what programs leave behind."""
    for seed, name in enumerate(("train", "holdout", "test")):
        form = "NFD" if name == "holdout" else "NFC"
        folder = tmp_path / "images" / name / unicodedata.normalize(form, "d\u00e9")
        picture(folder / "deep" / "er" / "1.webp", 500 + seed)
        for junk in ("._1.jpg", ".DS_Store", "Thumbs.db", "@eaDir/1.jpg", "__MACOSX/1.jpg"):
            (folder / junk).parent.mkdir(exist_ok=True)
            (folder / junk).write_bytes(b"no image")
        (tmp_path / "images" / name / "__MACOSX" / "a").mkdir(parents=True)
    (tmp_path / "images/train/a/1.heic").write_bytes(b"x")
    (tmp_path / "images/train/readme.txt").write_bytes(b"x")
    prepare.run(Experiment(cfg))
    train = ShardSet(tmp_path / "data/mine/train")
    assert train.classes == ["a", "b", "c", "d\u00e9"]
    assert train.labels_N.tolist() == [0, 0, 1, 1, 2, 2, 3]
    said = capsys.readouterr().out
    assert "prepare: train: ignored 1 .txt, 1 .heic, such as images/train/readme.txt; only files .jpg, " in said
    assert said.count("ignored") == 1


def test_sets_in_flat_folders_are_made_from_what_earlier_versions_made_them_from(cfg, tmp_path):
    """The digest is of the names and sizes in order, as before: a complete set is not asked for again."""
    names = ["a/0.jpg", "a/1.png", "b/0.jpg", "b/1.png", "c/0.jpg", "c/1.png"]
    sizes = [(name, (tmp_path / "images/train" / name).stat().st_size) for name in names]
    made = folders.inputs(cfg.data, cfg.protocol, "train")
    expected = {"set": "train", "files": storage.fingerprint(sizes), "classes": ["a", "b", "c"]}
    assert made == {"library": "folders", **expected}


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
