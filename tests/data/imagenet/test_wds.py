"""The WebDatasets of CLIP_benchmark and DataComp: the same images and labels as ImageNet's own files give."""

import io
from pathlib import Path

import numpy as np
import pytest
from layouts import SHIFTS, picture, put, shift_sets, tar_bytes
from PIL import Image
from test_imagenet_prepare import config, opened

from modelsoups.data.imagenet import metadata, projections, sources, trees, wds
from modelsoups.experiment.experiment import Experiment
from modelsoups.stages import prepare

TASKS = {
    "v2": "imagenetv2",
    "r": "imagenet-r",
    "sketch": "imagenet_sketch",
    "objectnet": "objectnet",
    "a": "imagenet-a",
}
CLASSES = {"v2": 1000, "r": 200, "sketch": 1000, "objectnet": 113, "a": 200, "val": 1000}


def webp(content):
    buffer = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").save(buffer, format="webp", lossless=True)
    return buffer.getvalue()


def write(root, samples, classes, kind="webp", per_tar=2):
    """A set as convert_dataset of CLIP_benchmark writes it. samples: (encoded image, label)."""
    names = [f"class {label}" for label in range(classes)]
    put(root / "classnames.txt", ("\n".join(names) + "\n").encode())
    put(root / "zeroshot_classification_templates.txt", b"a photo of a {c}.\n")
    tars = [samples[start : start + per_tar] for start in range(0, len(samples), per_tar)]
    number = 0
    for index, part in enumerate(tars):
        files = {}
        for content, label in part:
            files[f"s{number:07d}.cls"] = str(label).encode()
            files[f"s{number:07d}.{kind}"] = content
            number += 1
        put(root / "test" / f"{index}.tar", tar_bytes(files))
    put(root / "test" / "nshards.txt", f"{len(tars)}\n".encode())
    return root


def samples_of(name):
    """The images of a test set in the order of ImageFolder, as the tests' own trees have them."""
    folder = next(place for place in metadata.SETS[name].folders if place in SHIFTS)
    labels, found = trees.folder_labels(name), []
    for class_folder, files in SHIFTS[folder].items():
        label = labels[class_folder]
        found += [(picture(f"{folder}/{class_folder}/{file}"), label) for file in sorted(files) if label >= 0]
    return sorted(found, key=lambda sample: sample[1])


def val_samples():
    """The first images of ImageNet's val in CLIP_benchmark's order, all of class 0."""
    first = [number for number, label in enumerate(metadata.val_labels(), 1) if label == 0][:4]
    return first, [(picture(f"ILSVRC2012_val_{number:08d}"), 0) for number in first]


def test_all_evaluation_sets_give_the_images_and_labels_of_their_own_files(tmp_path):
    packed, plain = tmp_path / "packed", tmp_path / "plain"
    for name, task in TASKS.items():
        root = packed / (f"wds_{task}_test" if name != "r" else f"wds_{task}")
        kind = "jpg" if name == "a" else "webp"
        made = [(content if kind == "jpg" else webp(content), label) for content, label in samples_of(name)]
        write(root, made, CLASSES[name], kind)
    numbers, val = val_samples()
    write(packed / "wds_imagenet1k_test", [(webp(content), label) for content, label in val], 1000)
    cfg, own = config(packed), config(shift_sets(plain))
    assert prepare.run(Experiment(cfg))
    assert prepare.run(Experiment(own))
    for name in TASKS:
        one, two = opened(cfg, name), opened(own, name)
        assert one.labels_N.tolist() == two.labels_N.tolist()
        for i in range(len(one)):
            same = [np.array_equal(one.image(i), two.image(j)) for j in np.flatnonzero(two.labels_N == one.labels_N[i])]
            assert any(same)
    assert opened(cfg, "a").read(0).startswith(b"\xff\xd8")  # copied as it is
    assert opened(cfg, "val").keys_N.tolist() == [f"ILSVRC2012_val_{number:08d}" for number in numbers]


def listed(name, folder):
    with pytest.raises(ValueError, match=r".") as error:
        wds.list_folder(name, folder)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def packed(tmp_path):
    return write(tmp_path / "wds_imagenet-a_test", [(picture(str(n)), n) for n in range(5)], 200, "jpg")


def test_tars_that_nshards_does_not_count_and_missing_ones_are_named(packed):
    test = packed / "test"
    assert len(wds.list_folder("a", test)) == 5
    put(test / "3.tar", tar_bytes({}))
    assert "3.tar is not among the 3 tars of nshards.txt" in listed("a", test)
    put(test / "nshards.txt", b"6\n")
    assert "4.tar is missing, one of 2 of the 6 in nshards.txt; download it again" in listed("a", test)
    for text in (b"three", b"-1", b"", b"9" * 30):
        put(test / "nshards.txt", text)
        assert "not the number of tars" in listed("a", test)
    put(test / "nshards.txt", b"0")
    assert "is not among the 0 tars" in listed("a", test)


def test_sets_with_other_classes_are_refused(packed):
    test = packed / "test"
    assert "classnames.txt has 200 classes, but ImageNet-Sketch has 1,000" in listed("sketch", test)
    (packed / "classnames.txt").unlink()
    assert len(wds.list_folder("sketch", test)) == 5  # nothing says that it is not
    put(test / "2.tar", tar_bytes({"s0000004.cls": b"200", "s0000004.jpg": picture("4")}))
    assert "2.tar: s0000004.jpg has label 200, but ImageNet-A has the classes 0 to 199" in listed("a", test)
    put(packed / "dataset_type.txt", b"retrieval\n")
    assert "dataset_type.txt says 'retrieval', not classification" in listed("a", test)


def test_damaged_tars_are_named(packed):
    test = packed / "test"
    for files, message in (
        ({"s0000004.jpg": picture("4")}, "s0000004 has an image but no label"),
        ({"s0000004.cls": b"4"}, "s0000004 has a label but no image"),
        ({"s0000004.cls": b"tench", "s0000004.jpg": picture("4")}, "contains b'tench', not a class number"),
        ({"s0000004.cls": b"4" * 99, "s0000004.jpg": picture("4")}, "not a class number"),
    ):
        put(test / "2.tar", tar_bytes(files))
        found = listed("a", test)
        assert f"{test / '2.tar'}: s0000004" in found
        assert message in found
    put(test / "2.tar", tar_bytes({"s0000004.cls": b"4", "s0000004.jpg": picture("4")})[:700])
    assert "2.tar is truncated or not an uncompressed tar" in listed("a", test)


def test_val_in_another_order_is_refused(tmp_path):
    _, val = val_samples()
    root = write(tmp_path / "wds_imagenet1k", [(val[0][0], 5)], 1000, "jpg")
    found = listed("val", root / "test")
    assert "s0000000.jpg has label 5, expected 0: CLIP_benchmark sorts val by class and name" in found
    put(root / "test" / "0.tar", tar_bytes({"cat.cls": b"0", "cat.jpg": val[0][0]}))
    assert "is not named s0000000 to s0049999" in listed("val", root / "test")


def test_such_a_folder_is_found_where_data_sources_points(packed, tmp_path):
    for given in (packed, packed / "test"):
        found = sources.find("a", None, str(given))
        assert (found.form, found.paths) == ("wds", (packed / "test",))
    elsewhere = sources.find("r", str(tmp_path), None)
    assert (
        elsewhere
        == f"{tmp_path} has no imagenet-r/ or wds_imagenet-r_test/ (if its files are elsewhere, set data.sources.r=...)"
    )
    assert sources.find("a", str(tmp_path), None).paths == (packed / "test",)
    assert len(projections.label_names("objectnet")) == CLASSES["objectnet"]
    assert isinstance(sources.find("v2", str(packed), None), str)
    assert Path(packed / "test" / "nshards.txt").read_text() == "3\n"
