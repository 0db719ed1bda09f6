"""prepare for the data sets of appendix E: official trees become sets, and wrong files are refused in a line."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import transfer_files

from modelsoups.config.compose import load
from modelsoups.data.imagenet import metadata
from modelsoups.data.shards import ShardSet, check_disjoint
from modelsoups.data.transfer.library import ALL, Transfer
from modelsoups.disk import storage
from modelsoups.experiment.experiment import Experiment
from modelsoups.stages import prepare


def config(name, root, *more):
    options = [f"data={name}", f"data.root={root}", f"data.dir={root}/shards/{name}", "data.check_counts=false"]
    return load([*options, "data.holdout_per_class=1", "data.workers=1", "name=transfer", *more])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return transfer_files.write(tmp_path_factory.mktemp("official"))


CLASSES = {
    "dtd": transfer_files.TEXTURES,
    "food101": ["apple pie", "hot dog", "waffles"],
    "sun397": ["abbey", "apartment building outdoor", "yard"],
    "cars": transfer_files.MAKES,
    "cifar100": ["apple", "aquarium fish", "lawn mower", "worm"],
}


@pytest.mark.parametrize("name", CLASSES)
def test_an_official_tree_becomes_disjoint_sets_with_clips_class_names(name, root):
    cfg = config(name, root)
    assert prepare.run(Experiment(cfg))
    assert not prepare.run(Experiment(cfg))
    train, held, test = (ShardSet(Path(cfg.data.dir) / n) for n in (cfg.data.train, cfg.data.holdout, cfg.data.test))
    assert train.classes == held.classes == test.classes == CLASSES[name]
    check_disjoint(train, held)
    own = 4 if name == "dtd" else 1  # DTD has an official hold-out
    every = 4 * len(CLASSES[name])
    assert (len(train) + len(held), len(held), len(test)) == (
        every + 3 * 4 * (name == "dtd"),
        own * len(train.classes),
        every,
    )
    for dataset in (train, held, test):
        counts = np.bincount(dataset.labels_N)
        assert counts.min() == counts.max()


@pytest.mark.parametrize(("name", "folder"), [("dtd", "dtd/dtd/images"), ("food101", "food-101/images")])
def test_the_bytes_of_images_are_those_of_the_files_of_their_class(name, folder, root):
    test = ShardSet(Path(config(name, root).data.dir) / "test")
    files = {path.read_bytes(): path.parent.name.replace("_", " ") for path in (root / folder).rglob("*.jpg")}
    assert [files[test.read(i)] for i in range(len(test))] == [test.classes[label] for label in test.labels_N]


def test_labels_of_cars_and_cifar_100_are_those_of_the_annotations(root):
    cars = ShardSet(Path(config("cars", root).data.dir) / "test")
    numbers = {p.read_bytes(): int(p.stem) - 1 for p in (root / "stanford_cars/cars_test").iterdir()}
    assert [numbers[cars.read(i)] % 3 for i in range(len(cars))] == cars.labels_N.tolist()
    hundred = ShardSet(Path(config("cifar100", root).data.dir) / "test")
    pixels, labels = transfer_files.cifar_files.pictures(51, [0, 1, 2, 3] * 4)
    truth = {image.tobytes(): label for image, label in zip(pixels, labels, strict=True)}
    for i, label in enumerate(hundred.labels_N):
        assert truth[np.asarray(hundred.image(i)).tobytes()] == label


def test_prompts_are_clips_and_for_cifar_100_those_of_imagenet(root):
    def prompts(name):
        return Experiment(config(name, root)).sets.facts("test")["templates"]

    assert [len(prompts(name)) for name in CLASSES] == [8, 1, 2, 8, 80]
    assert prompts("cifar100") == metadata.templates()
    assert prompts("dtd")[5] == "a photo of the {} pattern."
    assert prompts("cars")[-1] == "a photo of my old {}."


def refused(name, root, *more):
    with pytest.raises(ValueError, match=r".") as error:
        prepare.run(Experiment(config(name, root, *more)))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", CLASSES)
def test_a_missing_folder_is_named_with_its_archive(name, tmp_path):
    said = refused(name, tmp_path)
    assert str(tmp_path) in said
    assert "is missing; unpack " in said
    assert f"data.root={tmp_path}" in said
    assert "data.root is null; set it to the folder with" in refused(name, tmp_path, "data.root=null")


def test_wrong_files_are_named(tmp_path):
    transfer_files.write(tmp_path)
    assert "unknown data set v6; the splits of DTD are train, val, test" in refused("dtd", tmp_path, "data.shifts=[v6]")
    assert "train has 3 classes, not the official 47" in refused("dtd", tmp_path, "data.check_counts=true")
    assert "too few to hold out 4; lower data.holdout_per_class" in refused(
        "cars", tmp_path, "data.holdout_per_class=4"
    )
    (tmp_path / "dtd/dtd/labels/train1.txt").write_text("banded_0001.jpg\n")
    assert "train1.txt: DTD cannot be read (not enough values" in refused("dtd", tmp_path)
    (tmp_path / "food-101/meta/train.json").write_text("[")
    assert "train.json: Food-101 cannot be read (" in refused("food101", tmp_path)
    (tmp_path / "food-101/meta/train.json").write_text('{"hot_dog": ["hot_dog/7", "hot_dog/7"]}')
    assert "food-101/images/hot_dog/7.jpg is listed twice in train" in refused("food101", tmp_path)
    (tmp_path / "SUN397/a/abbey/sun_abx0.jpg").unlink()
    assert "sun_abx0.jpg is missing, which Training_01.txt names" in refused("sun397", tmp_path)
    (tmp_path / "stanford_cars/devkit/cars_train_annos.mat").write_bytes(b"no MAT file")
    assert "cars_train_annos.mat: Stanford Cars cannot be read (" in refused("cars", tmp_path)
    (tmp_path / "stanford_cars/cars_test_annos_withlabels.mat").unlink()
    transfer_files.cifar100(tmp_path, names=transfer_files.HUNDRED[:3])
    assert "has label 3, but there are 3 classes" in refused("cifar100", tmp_path)


def test_other_class_names_than_clips_are_refused(tmp_path):
    data = config("dtd", transfer_files.dtd(tmp_path), "data.check_counts=true").data
    small = replace(ALL["dtd"].spec, classes=3, images={"test": 12})
    with pytest.raises(
        ValueError, match=r"the names of its 3 classes are not the official ones \(banded, polka-dotted, "
    ):
        Transfer(small).facts(data, "paper", "test")
    own = replace(small, names=storage.fingerprint(sorted(transfer_files.TEXTURES)))
    assert Transfer(own).facts(data, "paper", "test")["classes"] == transfer_files.TEXTURES


def test_an_image_that_is_gone_is_named(tmp_path):
    transfer_files.cars(tmp_path)
    (tmp_path / "stanford_cars/cars_train/00003.jpg").unlink()
    assert "cars_train/00003.jpg cannot be read (No such file or directory)" in refused("cars", tmp_path)


def test_a_pickle_that_could_run_code_is_refused(tmp_path):
    transfer_files.cifar100(tmp_path)
    (tmp_path / "cifar-100-python/train").write_bytes(b"\x80\x02cposix\nsystem\nU\x04true\x85R.")
    assert "is not an official file of CIFAR-100 (it asks for posix.system" in refused("cifar100", tmp_path)
