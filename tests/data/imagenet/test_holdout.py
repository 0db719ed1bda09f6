"""The hold-out: the rule by hand, and the authors' file with its traps."""

import numpy as np
import pytest

from modelsoups.data.imagenet import holdout, metadata
from modelsoups.data.imagenet.listing import Found, Listing, original_name

# names and the first digits of their sha256, by `printf %s NAME | sha256sum`; the two smallest of a class are held out
BY_HAND = {
    "n01440764_18": ("4bbed484", True),
    "n01440764_36": ("4e6e0967", False),
    "n01440764_37": ("b5a551c6", False),
    "n01440764_1002": ("15791ad4", True),
    "n01440764_10026": ("94d9cabf", False),
    "n01443537_2": ("1622ecb4", True),
    "n01443537_16": ("75910cbc", True),
    "n01443537_22": ("f89053db", False),
}
IMAGEFOLDER = ["n01440764_1002", "n01440764_10026", "n01440764_18", "n01440764_36", "n01440764_37", "n01443537_16"]
IMAGEFOLDER += ["n01443537_2", "n01443537_22"]  # torchvision's order: file names as strings


def listing(keys):
    images = [Found(k, metadata.class_of()[k.partition("_")[0]], "train", k, 0, 1) for k in keys]
    return Listing.of(images).in_order()


def held(images, mask_N):
    return {str(k, "ascii") for k in images.key_N[mask_N]}


@pytest.mark.parametrize("order", [1, -1])
def test_the_smallest_hashes_of_each_class_are_held_out_in_any_order(order):
    images = listing(list(BY_HAND)[::order])
    assert held(images, holdout.split(images, 2, None)) == {k for k, (_, out) in BY_HAND.items() if out}


def test_names_of_every_form_are_one_name():
    name = "n01440764_10026"
    forms = [f"{name}.JPEG", f"n01440764/{name}.JPEG", f"{name}_n01440764.JPEG", name, f"{name}.jpg", f"./a/{name}.cls"]
    assert {original_name(f) for f in forms} == {name}
    assert original_name("ILSVRC2012_val_00000001_n01751748.JPEG") == "ILSVRC2012_val_00000001"
    assert [original_name(n) for n in ("dog.JPEG", "n0144076_1.JPEG", "ILSVRC2012_test_00000001.JPEG")] == [None] * 3


def test_a_class_that_is_too_small_is_named():
    with pytest.raises(ValueError, match=r"1 classes are too small to hold out 3 images, .* n01443537 with 3; "):
        holdout.split(listing(BY_HAND), 3, None)


def authors_file(path, marks):
    np.save(path, np.array(marks, dtype=np.float64))
    return str(path)


def test_ones_of_the_authors_file_are_held_out_in_imagefolders_order(tmp_path):
    images = listing(BY_HAND)
    assert [str(k, "ascii") for k in images.key_N] == IMAGEFOLDER
    file = authors_file(tmp_path / "i.npy", [0, 1, 0, 0, 1, 0, 1, 1])
    expected = {"n01440764_10026", "n01440764_37", "n01443537_2", "n01443537_22"}
    assert held(images, holdout.split(images, 2, file)) == expected


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ([0, 1, 0, 0, 1, 0, 1], r"shape \(7,\), expected \(8,\)"),
        ([0, 1, 0, 0, 2, 0, 1, 1], "values other than 0 and 1"),
        ([1, 0, 1, 1, 0, 1, 0, 0], "1 to 3 images per class, 4 in total; expected 2"),
    ],
)
def test_a_wrong_authors_file_is_named(tmp_path, marks, message):
    with pytest.raises(ValueError, match=rf"i\.npy: .*{message}"):
        holdout.split(listing(BY_HAND), 2, authors_file(tmp_path / "i.npy", marks))


def test_a_file_that_is_no_array_or_not_there_is_named(tmp_path):
    (tmp_path / "i.npy").write_bytes(b"not an array")
    with pytest.raises(ValueError, match=r"i\.npy is not a NumPy array"):
        holdout.split(listing(BY_HAND), 2, str(tmp_path / "i.npy"))
    with pytest.raises(ValueError, match=r"data\.holdout_file=.*no\.npy does not exist"):
        holdout.rule(2, str(tmp_path / "no.npy"))


def test_the_whole_training_set_must_have_the_known_image_at_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(holdout, "ALL_IMAGES", 8)
    monkeypatch.setattr(holdout, "KNOWN_ROW", 2)
    file = authors_file(tmp_path / "i.npy", [0, 1, 0, 0, 1, 0, 1, 1])
    monkeypatch.setattr(holdout, "KNOWN_NAME", "n01443537_2")
    holdout.split(listing(BY_HAND), 2, file)
    monkeypatch.setattr(holdout, "KNOWN_NAME", "n01443537_22")
    with pytest.raises(ValueError, match="hold-out is n01443537_2, but n01443537_22 in the authors' split"):
        holdout.split(listing(BY_HAND), 2, file)
