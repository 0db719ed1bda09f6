"""prepare for CIFAR-10 and CIFAR-10.1: every form gives the same shards, and wrong files are refused in a line."""

import hashlib
from pathlib import Path

import cifar_files
import numpy as np
import pytest
from PIL import Image

from modelsoups.config.compose import load
from modelsoups.data.cifar import library, sources
from modelsoups.data.shards import ShardSet, check_disjoint
from modelsoups.experiment.experiment import Experiment
from modelsoups.stages import prepare


def config(root, *more):
    options = ["data=cifar10", f"data.root={root}", f"data.dir={root}/shards", "data.check_counts=false", "name=cifar"]
    return load([*options, "data.holdout_per_class=3", "data.shard_images=30", "data.workers=1", *more])


def opened(cfg, name):
    return ShardSet(Path(cfg.data.dir) / name)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    made = {}
    for form, write in (("batches", cifar_files.write_batches), ("folders", cifar_files.write_folders)):
        root = tmp_path_factory.mktemp(form)
        write(root)
        cifar_files.write_new_test_set(root)
        made[form] = config(root)
        assert prepare.run(Experiment(made[form]))
        assert not prepare.run(Experiment(made[form]))
    return made


def test_every_form_gives_the_same_shards(prepared):
    for name in ("train", "holdout", "test", "v6"):
        one, two = (opened(cfg, name) for cfg in prepared.values())
        assert one.sha256 == two.sha256
        assert one.keys_N.tolist() == two.keys_N.tolist()


def test_images_and_labels_are_those_of_the_files(prepared):
    cfg = prepared["batches"]
    truth = {}
    for pixels, labels in cifar_files.train_batches().values():
        truth |= {image.tobytes(): label for image, label in zip(pixels, labels, strict=True)}
    train, held = opened(cfg, "train"), opened(cfg, "holdout")
    assert (len(train), len(held)) == (70, 30)
    check_disjoint(train, held)
    for dataset in (train, held):
        for i in range(len(dataset)):
            assert truth.pop(np.asarray(dataset.image(i)).tobytes()) == dataset.labels_N[i]
    assert np.bincount(held.labels_N).tolist() == [3] * 10
    v6 = opened(cfg, "v6")
    assert (v6.role, v6.title, v6.labels_N.tolist()) == ("shift", "CIFAR-10.1", [0, 3, 3, 9])
    assert v6.classes == cifar_files.CLASSES
    assert (len(train.templates), train.templates[1]) == (18, "a blurry photo of a {}.")


def test_equal_images_stay_on_one_side_of_the_hold_out():
    labels_N = np.repeat(np.arange(10), 4)
    digests_N = np.array([["a", "b", "b", "c"][i % 4] for i in range(40)])
    assert library.holdout(labels_N, digests_N, 2).reshape(10, 4).tolist() == [[True, True, True, False]] * 10
    with pytest.raises(ValueError, match="class airplane has 4 images, too few to hold out 4"):
        library.holdout(labels_N, digests_N, 4)


def refused(root, *more):
    with pytest.raises(ValueError, match=r".") as error:
        prepare.run(Experiment(config(root, *more)))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing_and_incomplete_files_are_named(tmp_path):
    assert f"data.root={tmp_path} has no cifar-10-batches-py/data_batch_1 or train/airplane/" in refused(tmp_path)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    assert "cifar-10-python.tar.gz is packed; unpack it there" in refused(tmp_path)
    folder = cifar_files.write_batches(tmp_path)
    assert "has no cifar10.1_v6_data.npy (CIFAR-10.1); take it from" in refused(tmp_path)
    new = cifar_files.write_new_test_set(tmp_path)
    (new / "cifar10.1_v6_labels.npy").unlink()
    assert "cifar10.1_v6_labels.npy is missing; its other half is there" in refused(tmp_path)
    (folder / "data_batch_4").unlink()
    assert f"{folder / 'data_batch_4'} is missing; extract cifar-10-python.tar.gz again" in refused(tmp_path)
    assert "unknown data set v7; choose from train, holdout" in refused(tmp_path, "data.shifts=[v7]")
    assert "data set v6 is named twice" in refused(tmp_path, "data.extra=[v6]")


def test_counts_are_checked_unless_told_not_to(tmp_path):
    cifar_files.write_batches(tmp_path)
    found = refused(tmp_path, "data.shifts=[]", "data.check_counts=true")
    assert "images, not the official" in found
    labels_N = np.repeat(np.arange(10), 200)
    labels_N[0] = 1
    with pytest.raises(ValueError, match="199 images of class airplane, not the official 200"):
        sources._check_counts(sources.Source("v6", "npy", (tmp_path, tmp_path)), labels_N)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 10]}, "image 1 has label 10, expected 0 to 9"),
        ({"labels": [0, -1]}, "image 1 has label -1, expected 0 to 9"),
        ({"labels": [0]}, "has 1 labels for 2 images"),
        ({"labels": None}, "or labels; is it CIFAR-10's?"),
        ({"width": 3071}, "lacks data of 3072 bytes an image"),
    ],
)
def test_wrong_batches_are_named(tmp_path, change, message):
    folder = cifar_files.write_batches(tmp_path)
    cifar_files.write_new_test_set(tmp_path)
    rows = np.zeros((2, change.get("width", 3072)), np.uint8)
    labels = change.get("labels", [0, 1])
    given = cifar_files.text("none") if labels is None else cifar_files.listed(map(cifar_files.integer, labels))
    (folder / "test_batch").write_bytes(cifar_files.pickled({"data": cifar_files.array(rows), "labels": given}))
    with pytest.raises(ValueError, match="test_batch") as error:
        sources.read(sources.find("test", str(tmp_path)), complete=False)
    assert message in str(error.value)


def test_other_classes_are_refused(tmp_path):
    folder = cifar_files.write_batches(tmp_path)
    names = cifar_files.listed(map(cifar_files.text, ["beaver", "dolphin"]))
    (folder / "batches.meta").write_bytes(cifar_files.pickled({"label_names": names}))
    with pytest.raises(ValueError, match=r"batches.meta has the classes \['beaver', 'dolphin'\], not CIFAR-10's"):
        sources.read(sources.find("test", str(tmp_path)), complete=False)
    root = cifar_files.write_folders(tmp_path / "folders")
    source = sources.find("test", str(root))
    (root / "test" / "whale").mkdir()
    with pytest.raises(ValueError, match="test/whale is not a class of CIFAR-10"):
        sources.read(source, complete=False)
    (root / "test" / "whale").rmdir()
    Image.new("RGB", (33, 32)).save(root / "test" / "truck" / "wide.png")
    with pytest.raises(ValueError, match=r"wide.png cannot be used: 33 x 32 pixels, but CIFAR-10 has 32 x 32"):
        sources.read(source, complete=False)


def test_wrong_arrays_of_cifar_10_1_are_named(tmp_path):
    folder = cifar_files.write_new_test_set(tmp_path, "v4")
    source = sources.find("v4", str(tmp_path))
    data, labels = source.paths
    assert len(sources.read(source, complete=False)[0]) == 4
    np.save(labels, np.array([0, 1, 2, 12]))
    with pytest.raises(ValueError, match=r"v4_labels\.npy: image 3 has label 12"):
        sources.read(source, complete=False)
    np.save(labels, np.array([{"run": print}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"v4_labels\.npy is truncated or not a NumPy array"):
        sources.read(source, complete=False)
    np.save(labels, np.zeros((4, 1), np.int64))
    with pytest.raises(ValueError, match="expected one integer an image"):
        sources.read(source, complete=False)
    with open(data, "wb") as file:  # a header that asks for 3 TB
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 32, 32, 3)}
        )
    with pytest.raises(ValueError, match=r"v4_data\.npy is truncated or not a NumPy array"):
        sources.read(source, complete=False)
    np.save(folder / "cifar10.1_v4_data.npy", np.zeros((4, 32, 32), np.uint8))
    with pytest.raises(ValueError, match=r"uint8 of shape \(4, 32, 32\), expected"):
        sources.read(source, complete=False)


def test_a_limit_keeps_a_part_chosen_by_hash_in_its_order():
    digests = np.array([hashlib.sha256(bytes([i])).hexdigest() for i in range(100)])
    order_N = np.arange(99, -1, -2)
    kept = library.limited(order_N, digests, 20)
    assert len(kept) == 20
    assert (np.diff(kept) < 0).all()
    assert set(library.limited(order_N, digests, 10)) < set(kept)
    assert library.limited(order_N, digests, 1000).tolist() == order_N.tolist()
