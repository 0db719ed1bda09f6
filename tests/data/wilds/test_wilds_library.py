"""prepare for FMoW and iWildCam: the official splits, labels and regions; wrong tables are refused in a line."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import wilds_files
from PIL import Image

from modelsoups.config.compose import load
from modelsoups.data.shards import ShardSet
from modelsoups.data.wilds import fmow, iwildcam
from modelsoups.data.wilds.spec import SPLITS
from modelsoups.experiment.experiment import Experiment
from modelsoups.stages import prepare

WRITE = {"fmow": wilds_files.fmow, "iwildcam": wilds_files.iwildcam}


def config(name, root, *more):
    options = [f"data={name}", f"data.root={root}", f"data.dir={root}/shards", "data.check_counts=false"]
    return load([*options, f"name={name}", "data.shard_images=2", "data.workers=1", *more])


def opened(cfg, name):
    return ShardSet(Path(cfg.data.dir) / name)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    made = {}
    for name, write in WRITE.items():
        root = tmp_path_factory.mktemp(name)
        write(root)
        made[name] = config(name, root)
        assert prepare.run(Experiment(made[name]))
        assert not prepare.run(Experiment(made[name]))
    return made


def test_the_splits_of_fmow_are_the_official_ones(prepared):
    cfg = prepared["fmow"]
    titles = {"train": "FMoW train", "id_val": "FMoW ID validation", "val": "FMoW OOD validation"}
    titles |= {"id_test": "FMoW ID test", "test": "FMoW OOD test"}
    for name, title in titles.items():
        dataset = opened(cfg, name)
        rows = [n for n, row in enumerate(wilds_files.FMOW_ROWS) if row[4] == name]
        assert dataset.keys_N.tolist() == [f"fmow_rgb_img_{n}" for n in rows]
        assert [fmow.CATEGORIES[label] for label in dataset.labels_N] == [wilds_files.FMOW_ROWS[n][1] for n in rows]
        assert dataset.title == title
        original = Path(cfg.data.root) / "fmow_v1.1" / "images" / f"rgb_img_{rows[0]}.png"
        assert dataset.read(0) == original.read_bytes()
    assert [opened(cfg, name).role for name in titles] == ["train", "holdout", "extra", "test", "shift"]
    assert (len(train := opened(cfg, "train").classes), train[1], train[30]) == (
        62,
        "airport hangar",
        "multi-unit residential",
    )
    assert list(fmow.CATEGORIES) == sorted(fmow.CATEGORIES)


def test_the_groups_of_fmow_are_its_regions_without_other(prepared):
    cfg = prepared["fmow"]
    assert opened(cfg, "train").groups_N.tolist() == [0, 1, 4]  # Africa, Americas, Oceania
    assert opened(cfg, "id_test").groups_N.tolist() == [3, -1]  # Europe, and Antarctica without a region
    assert opened(cfg, "val").groups_N.tolist() == [-1]  # a country that the table lacks
    test, task = opened(cfg, "test"), Experiment(cfg).task
    assert task.score_name == "worst-group accuracy"
    logits_NC = torch.zeros(3, 62)
    logits_NC[range(3), [0, 61, 0]] = 1  # right, right, wrong: Africa, Americas, Oceania
    labels_N = torch.from_numpy(test.labels_N)
    assert task.score(task.outcomes_on(test, logits_NC, labels_N)) == 0.0
    points = task.points_on(test)
    assert points(logits_NC, labels_N) == 0.0
    assert points.part(torch.tensor([0, 1]))(logits_NC[:2], labels_N[:2]) == 2.0
    np.save(test.folder / "groups.npy", np.zeros(3, np.int16))
    with pytest.raises(ValueError, match=r"groups.npy has changed since it was written"):
        opened(cfg, "test").groups_N  # noqa: B018


def test_the_splits_of_iwildcam_are_the_official_ones(prepared):
    cfg = prepared["iwildcam"]
    number = 0
    for name, labels in wilds_files.CAM_SPLITS.items():
        dataset = opened(cfg, name)
        assert dataset.labels_N.tolist() == labels
        assert dataset.keys_N[0] == f"iwildcam_{wilds_files.cam_name(number)}"
        assert dataset.classes == wilds_files.ANIMALS
        number += len(labels)
    task = Experiment(cfg).task
    assert task.score_name == "macro F1"
    assert task.points_on(dataset) == task.points
    with pytest.raises(ValueError, match=r"its images have no groups, which data.score=worst_group needs"):
        dataset.groups_N  # noqa: B018


def test_training_images_can_be_made_smaller(tmp_path):
    wilds_files.iwildcam(tmp_path)
    cfg = config("iwildcam", tmp_path, "data.train_resize=32")
    big = tmp_path / "iwildcam_v2.0" / "train" / f"{wilds_files.cam_name(7)}.jpg"
    Image.new("RGB", (90, 64)).save(big)
    assert prepare.run(Experiment(cfg))
    assert opened(cfg, "train").image(0).size == (45, 32)
    assert opened(cfg, "test").image(0).size == (24, 20)


def test_files_that_no_row_names_are_reported(prepared, tmp_path, capsys):
    wilds_files.iwildcam(tmp_path)
    prepare.run(Experiment(config("iwildcam", tmp_path)))
    said = f"iWildCam: 1 files in {tmp_path}/iwildcam_v2.0/train have no row, such as unnamed.jpg; ignored"
    assert said in capsys.readouterr().out


def refused(cfg):
    with pytest.raises(ValueError, match=r".") as error:
        prepare.run(Experiment(cfg))
    assert "\n" not in str(error.value)
    assert not list(Path(cfg.data.dir).glob("*/*.tar"))
    return str(error.value)


@pytest.mark.parametrize("name", WRITE)
def test_rows_without_images_and_missing_files_are_named(tmp_path, name, capsys):
    assert "correct data.root" in refused(config(name, tmp_path))
    folder = WRITE[name](tmp_path)
    counts = "data.check_counts=true"
    assert "images, not the official" in refused(config(name, tmp_path, counts))
    images = folder / ("images" if name == "fmow" else "train")
    gone = images / ("rgb_img_13.png" if name == "fmow" else f"{wilds_files.cam_name(5)}.jpg")
    gone.unlink()
    said = refused(config(name, tmp_path, counts))
    assert f"1 images of the table are missing, first {gone} (" in said
    assert "extract the archive again, or set data.check_counts=false" in said
    cfg = config(name, tmp_path)
    assert prepare.run(Experiment(cfg))
    assert len(opened(cfg, "test")) == 2
    assert f"first {gone}" in capsys.readouterr().out
    shutil.rmtree(images)
    shutil.rmtree(cfg.data.dir)
    assert f"{images} is missing; it holds the images" in refused(config(name, tmp_path))
    other = folder / ("country_code_mapping.csv" if name == "fmow" else "categories.csv")
    other.unlink()
    assert f"{other} is missing" in refused(config(name, tmp_path))


def changed(path, line, column, value):
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    rows[line - 1][rows[0].index(column)] = value
    wilds_files.table(path, rows[0], rows[1:])


WRONG = [
    ("fmow", "rgb_metadata.csv", 4, "split", "validation", "line 4: split is 'validation', expected one of train"),
    ("fmow", "rgb_metadata.csv", 2, "category", "castle", "line 2: 'castle' is none of FMoW's 62 categories"),
    ("fmow", "rgb_metadata.csv", 2, "timestamp", "yesterday", "line 2: timestamp 'yesterday' is not a date and time"),
    ("fmow", "rgb_metadata.csv", 1, "country_code", "country", "has no column country_code"),
    ("fmow", "country_code_mapping.csv", 2, "region", "Atlantis", "line 2: region is 'Atlantis', expected one of"),
    ("iwildcam", "metadata.csv", 3, "split", "ood", "line 3: split is 'ood', expected one of train, id_val"),
    ("iwildcam", "metadata.csv", 3, "y", "3", "line 3: label 3 is not among the 3 classes of categories.csv"),
    ("iwildcam", "metadata.csv", 3, "y", "-1", "line 3: y is '-1', expected a number from 0"),
    ("iwildcam", "metadata.csv", 3, "filename", "../../secret.jpg", "is not the name of a file in train/"),
    ("iwildcam", "metadata.csv", 3, "filename", f"{wilds_files.cam_name(0)}.jpg", "is also the image of line 2"),
    ("iwildcam", "categories.csv", 3, "y", "7", "has no name for label 1"),
    ("iwildcam", "categories.csv", 3, "y", "0", "label 0 has two names"),
]


@pytest.mark.parametrize(("name", "file", "line", "column", "value", "message"), WRONG)
def test_wrong_rows_are_named_with_their_line(tmp_path, name, file, line, column, value, message):
    folder = WRITE[name](tmp_path)
    changed(folder / file, line, column, value)
    library, spec = (
        Experiment(config(name, tmp_path)).sets._library(),
        {"fmow": fmow.FMOW, "iwildcam": iwildcam.IWILDCAM},
    )
    assert library.spec is spec[name]
    with pytest.raises(ValueError, match=file) as error:
        library._checked(config(name, tmp_path).data)
    assert message in str(error.value)


def test_files_that_are_no_tables_are_named(tmp_path):
    folder = wilds_files.iwildcam(tmp_path)
    table, whole = folder / "metadata.csv", (folder / "metadata.csv").read_bytes()
    contents = {
        "has 1 columns, not 11": whole + b"cut\n",
        "is not in UTF-8": whole + b"\xff\n",
        "is not a CSV table": whole + b'a,"b"c\n',
        "has no column split": b"",
    }
    for message, content in contents.items():
        table.write_bytes(content)
        with pytest.raises(ValueError, match=r"metadata\.csv") as error:
            list(iwildcam.entries(folder))
        assert message in str(error.value)


def test_damaged_images_are_named(tmp_path):
    folder = wilds_files.iwildcam(tmp_path)
    damaged = folder / "train" / f"{wilds_files.cam_name(7)}.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"7-21bc-11ea-a13a-137349068a90.jpg is not a complete image"):
        prepare.run(Experiment(config("iwildcam", tmp_path)))


def test_names_of_sets_are_splits(tmp_path):
    wilds_files.fmow(tmp_path)
    assert "unknown data set ood; the splits of FMoW are train, id_val" in refused(
        config("fmow", tmp_path, "data.shifts=[ood]")
    )
    assert "data set val is named twice" in refused(config("fmow", tmp_path, "data.holdout=val"))
    assert set(fmow.FMOW.counts) == set(iwildcam.IWILDCAM.counts) == set(SPLITS)
    assert sum(iwildcam.IWILDCAM.counts.values()) == 203_029
    assert sum(fmow.FMOW.counts.values()) == 141_696  # without the split seq
